//! Requests that nobody means well with.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{Site, ask, config, post, post_with, read};

#[tokio::test]
async fn bodies_over_the_limit_are_refused_however_they_come() {
    let mut config = config();
    config.body_bytes_max = 1000;
    let site = Site::start(config).await;
    let too_large = (413, "body_too_large".to_owned());
    let got = site.call("test.Things/zeros", &" ".repeat(1001)).await;
    assert_eq!(got.problem(), too_large);
    // What is only claimed is not waited for.
    let claims = "POST /test.Things/zeros HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
                  content-length: 9000000000000000\r\n\r\n";
    assert_eq!(ask(site.address, claims).await.problem(), too_large);
    // Without a length it is counted.
    let mut chunked =
        "POST /test.Things/zeros HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
                       transfer-encoding: chunked\r\n\r\n"
            .to_owned();
    for _ in 0..20 {
        chunked.push_str(&format!("64\r\n{}\r\n", " ".repeat(100)));
    }
    assert_eq!(ask(site.address, chunked).await.problem(), too_large);
    // What just fits is taken.
    let got = site.call("test.Things/zeros", &format!("{}1", " ".repeat(999))).await;
    assert_eq!(got.status, 200);
}

#[tokio::test]
async fn what_is_no_json_is_told() {
    let site = Site::start(config()).await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let objects = "{\"a\":".repeat(100_000);
    for body in ["{", "nul", "1 2", "\"\u{1}\"", "NaN", &deep, &objects] {
        let got = site.call("test.Things/same", body).await;
        assert_eq!(got.problem(), (400, "bad_json".to_owned()), "{:.20}", body);
    }
    let mut request = post("test.Things/same", "\"aa\"").into_bytes();
    let len = request.len();
    request[len - 2] = 0xff;
    assert_eq!(ask(site.address, request).await.problem(), (400, "bad_json".to_owned()));
    // JSON, but no argument.
    for body in ["[]", "7", "{}", &format!("{}{}", "[".repeat(100), "]".repeat(100))] {
        let got = site.call("test.Things/same", body).await;
        assert_eq!(got.problem(), (400, "bad_argument".to_owned()), "{:.20}", body);
    }
}

#[tokio::test]
async fn other_types_are_not_taken() {
    let site = Site::start(config()).await;
    let wrong = (415, "unsupported_media_type".to_owned());
    for headers in [
        "",
        "content-type: text/plain\r\n",
        "content-type: application/x-www-form-urlencoded\r\n",
        "content-type: application/jsonx\r\n",
        "content-type: application/json\r\ncontent-encoding: gzip\r\n",
    ] {
        let got = ask(site.address, post_with("test.Things/zeros", headers, "1")).await;
        assert_eq!(got.problem(), wrong, "{headers}");
    }
    // A method that takes bytes takes none that a page could send without asking.
    let text = "content-type: text/plain\r\n";
    let got = ask(site.address, post_with("test.Things/reverse", text, "1")).await;
    assert_eq!(got.problem(), wrong);
    let got = "content-type: Application/JSON; charset=utf-8\r\n";
    let got = ask(site.address, post_with("test.Things/zeros", got, "1")).await;
    assert_eq!(got.status, 200);
}

#[tokio::test]
async fn other_verbs_are_told_which_there_is() {
    let site = Site::start(config()).await;
    for verb in ["GET", "PUT", "DELETE", "OPTIONS", "HEAD"] {
        let request = format!("{verb} /test.Things/same HTTP/1.1\r\nhost: a\r\n\r\n");
        let got = ask(site.address, request).await;
        assert_eq!((got.status.as_u16(), got.header("allow")), (405, "POST"), "{verb}");
    }
    for path in ["", "services.json", "openapi.json", "healthz"] {
        let got = ask(site.address, post(path, "1")).await;
        assert_eq!((got.status.as_u16(), got.header("allow")), (405, "GET, HEAD"), "{path}");
    }
}

#[tokio::test]
async fn paths_that_lead_elsewhere_lead_nowhere() {
    let site = Site::start(config()).await;
    let long = format!("{}/b", "a".repeat(60_000));
    for path in [
        "a",
        "a/b/c",
        "a/",
        "/b",
        "../../etc/passwd",
        "%2e%2e/%2e%2e%2fetc",
        "test.Things%2Fsame",
        "test.Things/same/",
        "test.Things/same%00",
        "test.Things/sa%20me",
        "%ff/%fe",
        "favicon.ico",
        &long,
    ] {
        assert_eq!(site.call(path, "null").await.problem().0, 404, "{path:.40}");
    }
    // Names are not normalised, and nothing of them becomes a header or HTML.
    for path in [
        "test.things/same",
        "test.Things/Same",
        "%3Cscript%3E/a",
        "..%2e/a",
        "ringcall.Reflection/x",
    ] {
        let got = site.call(path, "null").await;
        assert_eq!(got.problem(), (404, "unknown_method".to_owned()), "{path}");
    }
    let absolute = "POST http://elsewhere.test/test.Things/zeros HTTP/1.1\r\nhost: a\r\n\
                    content-type: application/json\r\ncontent-length: 1\r\n\r\n1";
    assert_eq!(ask(site.address, absolute).await.status, 200);
}

#[tokio::test]
async fn no_end_of_headers_and_no_http_is_not_kept() {
    let site = Site::start(config()).await;
    let many = "a: b\r\n".repeat(5000);
    let got = ask(site.address, post_with("test.Things/zeros", &many, "1")).await;
    assert_eq!(got.status, 431);
    let long = format!("x-meta-a: {}\r\n", "a".repeat(1 << 20));
    let got = ask(site.address, post_with("test.Things/zeros", &long, "1")).await;
    assert_eq!(got.status, 431);
    for garbage in
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01"[..], b"nonsense\r\n\r\n", b"\0\0\0\0\0\0\r\n\r\n"]
    {
        let mut stream = TcpStream::connect(site.address).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        let got = read(&mut stream, false).await;
        assert!(got.is_none_or(|got| got.status == 400));
    }
    assert_eq!(site.call("test.Things/zeros", "1").await.status, 200);
}

#[tokio::test]
async fn pages_of_others_do_not_make_calls() {
    let site = Site::start(config()).await;
    let from = |header: &str| post_with("test.Things/seen", header, "");
    for header in [
        "sec-fetch-site: cross-site\r\n",
        "sec-fetch-site: same-site\r\n",
        "origin: http://elsewhere.test\r\n",
        "origin: http://localhost:1\r\n",
        "origin: null\r\n",
    ] {
        let got = ask(site.address, from(header)).await;
        assert_eq!(got.problem(), (403, "cross_site".to_owned()), "{header}");
        assert!(!got.headers.contains_key("access-control-allow-origin"));
    }
    for header in [
        "sec-fetch-site: same-origin\r\n",
        "sec-fetch-site: none\r\n",
        "origin: http://localhost\r\n",
    ] {
        assert_eq!(ask(site.address, from(header)).await.status, 200, "{header}");
    }
    let mut config = config();
    config.cross_site = true;
    let site = Site::start(config).await;
    assert_eq!(ask(site.address, from("sec-fetch-site: cross-site\r\n")).await.status, 200);
}

#[tokio::test]
async fn only_hosts_that_were_named_are_answered_for() {
    let mut config = config();
    config.hosts = vec!["localhost".to_owned(), "[::1]".to_owned()];
    let site = Site::start(config).await;
    let to = |host: &str| format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n");
    for (host, status) in [
        ("localhost", 200),
        ("LocalHost:8080", 200),
        ("[::1]:8080", 200),
        ("elsewhere.test", 421),
        ("localhost.elsewhere.test", 421),
        ("", 421),
    ] {
        assert_eq!(ask(site.address, to(host)).await.status, status, "{host}");
    }
    // Whoever looks after it has no name.
    assert_eq!(site.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn whom_the_hook_refuses_sees_nothing() {
    let site = Site::start_with(config(), |gateway| {
        gateway.authorize(|parts| match parts.headers.get("authorization") {
            Some(given) if given == "yes" => Ok(()),
            Some(_) => Err(http::StatusCode::FORBIDDEN),
            None => Err(http::StatusCode::UNAUTHORIZED),
        })
    })
    .await;
    for path in ["/", "/services.json", "/openapi.json", "/test.Things/zeros", "/nothing"] {
        assert_eq!(site.get(path).await.problem(), (401, "unauthenticated".to_owned()), "{path}");
    }
    let with = |value| post_with("test.Things/seen", value, "");
    assert_eq!(ask(site.address, with("authorization: no\r\n")).await.problem().0, 403);
    assert_eq!(ask(site.address, with("authorization: yes\r\n")).await.status, 200);
    assert_eq!(site.get("/healthz").await.status, 200);
}
