//! A service whose handlers run on tokio, since what they use does: a table in SQLite, asked through `sqlx`.
//! The server's shards know nothing of tokio. They hand each call to a hook, here `Handle::spawn`, and send
//! its answer when it comes.
//!
//! ```text
//! $ cargo run --release -p ringcall-example-sqlite
//! put 3 notes
//! get milk: 2 bottles
//! get beer: there is no note with this name
//! list: bread, eggs, milk
//! 200 notes put by 8 threads, all are there
//! ```

use std::thread;

use ringcall::{Address, CallError, Server};
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};
use tokio::runtime::{Builder, Handle};

#[ringcall::message]
struct Note {
    name: String,
    text: String,
}

/// Why a call did not do what it should. What SQLite says stays in the server's log.
#[ringcall::message]
#[derive(Debug, PartialEq)]
enum NotesError {
    /// There is no note with this name.
    NotFound,
    /// The database failed.
    Database,
}

impl std::fmt::Display for NotesError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NotesError::NotFound => "there is no such note",
            NotesError::Database => "the database has failed",
        })
    }
}

// `send`: its futures may go to other threads.
#[ringcall::service(send)]
trait Notes {
    /// Keeps a note, in place of one that has its name.
    async fn put(&self, note: Note) -> Result<(), NotesError>;
    /// The text of a note.
    async fn get(&self, name: String) -> Result<String, NotesError>;
    /// The names of all notes that begin so, in their order, 1000 at most.
    async fn list(&self, prefix: String) -> Result<Vec<String>, NotesError>;
}

/// A handle, as a pool is.
#[derive(Clone)]
struct Database {
    pool: SqlitePool,
}

impl Database {
    async fn open() -> Result<Database, sqlx::Error> {
        // Each connection to `:memory:` has a database of its own, and this one lasts as long as its connection.
        let options =
            SqlitePoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
        let pool = options.connect("sqlite::memory:").await?;
        sqlx::query("CREATE TABLE notes (name TEXT PRIMARY KEY, text TEXT NOT NULL) STRICT")
            .execute(&pool)
            .await?;
        Ok(Database { pool })
    }
}

impl Notes for Database {
    async fn put(&self, note: Note) -> Result<(), NotesError> {
        sqlx::query(
            "INSERT INTO notes VALUES (?, ?) ON CONFLICT DO UPDATE SET text = excluded.text",
        )
        .bind(note.name)
        .bind(note.text)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    async fn get(&self, name: String) -> Result<String, NotesError> {
        let text = sqlx::query_scalar("SELECT text FROM notes WHERE name = ?").bind(name);
        text.fetch_optional(&self.pool).await?.ok_or(NotesError::NotFound)
    }

    async fn list(&self, prefix: String) -> Result<Vec<String>, NotesError> {
        let names = sqlx::query_scalar(
            "SELECT name FROM notes WHERE substr(name, 1, length(?1)) = ?1 ORDER BY name LIMIT 1000",
        );
        Ok(names.bind(prefix).fetch_all(&self.pool).await?)
    }
}

impl From<sqlx::Error> for NotesError {
    fn from(error: sqlx::Error) -> NotesError {
        println!("the database: {error}");
        NotesError::Database
    }
}

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

fn main() -> Result<()> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let database = runtime.block_on(Database::open())?;
    let server = serve(database, runtime.handle().clone())?;
    use_it(server.address())?;
    use_it_from_many_threads(server.address())?;
    server.stop();
    Ok(())
}

fn serve(database: Database, tokio: Handle) -> Result<ringcall::RunningServer> {
    let spawn = move |call| drop(tokio.spawn(call));
    Ok(Server::bind("127.0.0.1:0").service_spawned(database.into_notes(), spawn).start()?)
}

fn use_it(address: &Address) -> Result<()> {
    let notes = NotesClient::connect(address).wait()?;
    for (name, text) in
        [("milk", "1 bottle"), ("milk", "2 bottles"), ("eggs", "6"), ("bread", "rye")]
    {
        notes.put(&Note { name: name.into(), text: text.into() }).wait()?;
    }
    println!("put 3 notes");

    let milk = notes.get(&"milk".to_owned()).wait()?;
    println!("get milk: {}", milk.as_str());
    assert_eq!(milk.as_str(), "2 bottles");
    match notes.get(&"beer".to_owned()).wait() {
        Err(CallError::App(NotesError::NotFound)) => {
            println!("get beer: there is no note with this name");
        }
        other => panic!("{other:?}"),
    }
    let all = notes.list(&String::new()).wait()?;
    let names: Vec<&str> = all.iter().map(|name| name.as_str()).collect();
    println!("list: {}", names.join(", "));
    assert_eq!(names, ["bread", "eggs", "milk"]);
    Ok(())
}

/// Calls wait in tokio, for the database's one connection, and not on the shard that received them.
fn use_it_from_many_threads(address: &Address) -> Result<()> {
    let notes = NotesClient::connect(address).wait()?;
    thread::scope(|scope| {
        for thread in 0..8 {
            let notes = notes.clone();
            scope.spawn(move || {
                for number in 0..25 {
                    let name = format!("note {thread} {number}");
                    notes
                        .put(&Note { text: name.clone(), name })
                        .wait()
                        .expect("the database is there");
                }
            });
        }
    });
    assert_eq!(notes.list(&"note ".to_owned()).wait()?.len(), 200);
    println!("200 notes put by 8 threads, all are there");
    Ok(())
}
