//! Work that is done on all cores, with a bar.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use indicatif::{ProgressBar, ProgressStyle};

/// Does something with each of these; what came of it, in their order.
pub(crate) fn on_all<T: Sync, R: Send>(
    what: &str,
    items: &[T],
    run: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let bar = ProgressBar::new(items.len() as u64);
    let style = format!("{{elapsed_precise}} {{bar:40}} {{pos}}/{{len}} {what}");
    bar.set_style(ProgressStyle::with_template(&style).expect("it is a template"));
    bar.tick();
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let cores = thread::available_parallelism().map_or(1, usize::from).min(items.len());
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some((index, item)) = nth(items, next.fetch_add(1, Ordering::Relaxed)) {
                    let result = run(item);
                    done.lock().expect("no thread has panicked").push((index, result));
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut done = done.into_inner().expect("no thread has panicked");
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

fn nth<T>(items: &[T], index: usize) -> Option<(usize, &T)> {
    Some((index, items.get(index)?))
}
