//! HTTP: metrics, health, and a status page of a relay.
//!
//! In: the counters of a relay. Out: responses, on one thread, one per connection and each within a time limit: slow or
//! numerous clients wait, and the relay does not.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName};
use axum::http::{StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use tokio::sync::{Notify, Semaphore};
use tokio::time;

use super::metrics::{self, Metrics};
use super::stats::{LatencyMark, Snapshot, Stats};
use crate::error::{Error, Result};
use crate::media;
use crate::sync::lock;

/// Connections at a time; others wait to be accepted.
const CONNECTIONS_MAX: usize = 256;
/// Time to send a request.
const REQUEST_MAX: Duration = Duration::from_secs(2);
/// Time from a connection's first byte to its last.
const CONNECTION_MAX: Duration = Duration::from_secs(10);
/// Size of a request.
const REQUEST_BYTES_MAX: usize = 16 << 10;
/// Number of seconds that the page shows.
const POINTS_MAX: usize = 600;

const PAGE: &str = include_str!("status.html");
/// The page is one file and loads nothing from elsewhere.
const POLICY: &str = "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; \
                      script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'";

/// A bound address.
pub struct Server {
    listener: TcpListener,
    /// Whether the address is one of the loopback interface.
    is_local: bool,
    end: Arc<Notify>,
}

/// Shuts the server down when it is dropped.
pub struct ServerGuard(Arc<Notify>);

impl Drop for ServerGuard {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Server {
    /// Binds the address.
    pub fn bind(address: SocketAddr) -> Result<Server> {
        let bound = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        let is_local = address.ip().is_loopback();
        bound.map(|listener| Server { listener, is_local, end: Arc::default() }).map_err(|e| {
            let problem = format!("cannot be bound: {e}");
            Error::new(format!("--metrics {address}"), problem, "choose another address")
                .with_kind(e.kind().into())
                .with_source(e)
        })
    }

    /// Returns what shuts it down.
    pub fn guard(&self) -> ServerGuard {
        ServerGuard(self.end.clone())
    }

    /// Serves until the guard is dropped.
    pub fn run(self, stats: Arc<Stats>) -> Result<()> {
        let broken = |e: std::io::Error| Error::io("--metrics", e, "leave it out");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(broken)?;
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(self.listener).map_err(broken)?;
            let page = Arc::new(Page::new(stats));
            tokio::spawn(note_points(page.clone()));
            tokio::spawn(serve(listener, routes(page, self.is_local)));
            self.end.notified().await;
            Ok(())
        })
    }
}

async fn serve(listener: tokio::net::TcpListener, routes: Router) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
        let Ok((stream, _)) = listener.accept().await else {
            // No file descriptor is left: connections that end free some.
            time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let service = TowerToHyperService::new(routes.clone());
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_MAX)
                .max_buf_size(REQUEST_BYTES_MAX)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // A client that times out or disconnects gets no response.
            let _ = time::timeout(CONNECTION_MAX, connection).await;
            drop(slot);
        });
    }
}

fn routes(page: Arc<Page>, is_local: bool) -> Router {
    let html = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, POLICY)];
    let routes = Router::new()
        .route("/", get(async move || (html, PAGE)))
        .route("/metrics", get(async |State(page): State<Arc<Page>>| page.metrics()))
        .route("/healthz", get(async |State(page): State<Arc<Page>>| page.health()))
        .route("/readyz", get(async |State(page): State<Arc<Page>>| page.readiness()))
        .route("/status.json", get(async |State(page): State<Arc<Page>>, uri: Uri| page.status(&uri)))
        .route("/before.jpg", get(async |State(page): State<Arc<Page>>| page.preview(0)))
        .route("/after.jpg", get(async |State(page): State<Arc<Page>>| page.preview(1)))
        .with_state(page);
    if is_local { routes.layer(middleware::from_fn(refuse_other_hosts)) } else { routes }
}

/// Refuses requests for other host names than this machine's own: a name that leads to the loopback interface would let a
/// foreign page read the status (DNS rebinding). A request without a host comes from no browser.
async fn refuse_other_hosts(request: Request, next: Next) -> Response {
    match request.headers().get(HOST) {
        Some(host) if !host.to_str().is_ok_and(is_loopback) => {
            (StatusCode::FORBIDDEN, "this address answers to localhost, 127.0.0.1 and [::1] only\n")
                .into_response()
        }
        _ => next.run(request).await,
    }
}

/// Whether a host, with or without a port, is this machine's loopback interface.
fn is_loopback(host: &str) -> bool {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let name = host.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(host, |(name, _)| name);
    let v6 = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    match v6 {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback()),
        None => {
            name.eq_ignore_ascii_case("localhost")
                || name.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        }
    }
}

/// The state that responses are built from.
struct Page {
    stats: Arc<Stats>,
    metrics: Metrics,
    started_at: Instant,
    points: Mutex<Points>,
    /// Number of a preview, and its frames as far as they were requested.
    jpegs: Mutex<(u64, [Option<Vec<u8>>; 2])>,
}

#[derive(Default)]
struct Points {
    last: VecDeque<Point>,
    now: Option<Snapshot>,
}

/// A second of a relay.
#[derive(Serialize, Clone)]
struct Point {
    /// Seconds since the server started.
    second: u64,
    encoded: u64,
    duplicated: u64,
    dropped: u64,
    /// Frames by network, in the order of the snapshot.
    ladder: Vec<u64>,
    latency_ms_p50: u64,
    latency_ms_p99: u64,
    bytes_in: u64,
    bytes_out: Vec<u64>,
}

/// What the page requests every second.
#[derive(Serialize)]
struct Status<'a> {
    version: &'static str,
    source: &'a str,
    latency_ceiling_ms: u128,
    uptime_s: u64,
    now: Snapshot,
    points: Vec<Point>,
    /// Number of the newest preview.
    preview: u64,
}

impl Page {
    fn new(stats: Arc<Stats>) -> Page {
        let (metrics, started_at) = (Metrics::new(stats.clone()), Instant::now());
        Page { stats, metrics, started_at, points: Mutex::default(), jpegs: Mutex::default() }
    }

    fn metrics(&self) -> Response {
        ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], self.metrics.text()).into_response()
    }

    fn health(&self) -> Response {
        match self.stats.problem(Instant::now()) {
            Some(problem) => (StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")).into_response(),
            None => "ok\n".into_response(),
        }
    }

    /// Fails unless the source and a sink are connected.
    fn readiness(&self) -> Response {
        let has_sink = self.stats.sinks.iter().any(|sink| sink.connected.load(Relaxed));
        let problem = match (self.stats.is_source_connected(), has_sink) {
            (true, true) => return "ok\n".into_response(),
            (false, _) => "the source is not connected\n",
            (true, false) => "no sink is connected\n",
        };
        (StatusCode::SERVICE_UNAVAILABLE, problem).into_response()
    }

    /// Responds with the points after the one that the page names as the last it has. Also requests a preview.
    fn status(&self, uri: &Uri) -> Response {
        let since = uri.query().and_then(|query| query.strip_prefix("since=")?.parse::<u64>().ok());
        let points = lock(&self.points);
        let new = points.last.iter().filter(|point| since.is_none_or(|since| point.second > since));
        let status = Status {
            version: env!("CARGO_PKG_VERSION"),
            source: &self.stats.source,
            latency_ceiling_ms: self.stats.latency_max.as_millis(),
            uptime_s: self.started_at.elapsed().as_secs(),
            now: points.now.clone().unwrap_or_else(|| self.stats.snapshot(&mut LatencyMark::default())),
            points: new.cloned().collect(),
            preview: self.stats.request_preview(),
        };
        ([(CACHE_CONTROL, "no-store")], Json(status)).into_response()
    }

    /// Responds with a JPEG of the preview before (0) or after (1) upscaling.
    fn preview(&self, which: usize) -> Response {
        const HEADERS: [(HeaderName, &str); 2] = [(CONTENT_TYPE, "image/jpeg"), (CACHE_CONTROL, "no-store")];
        let mut jpegs = lock(&self.jpegs);
        let Some((number, frame)) = self.stats.preview(which) else {
            return (StatusCode::NOT_FOUND, "there is no frame yet\n").into_response();
        };
        if jpegs.0 != number {
            *jpegs = (number, Default::default());
        }
        let jpeg = match jpegs.1[which].take() {
            Some(jpeg) => Ok(jpeg),
            None => media::jpeg(frame),
        };
        match jpeg {
            Ok(jpeg) => (HEADERS, jpegs.1[which].insert(jpeg).clone()).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        }
    }
}

/// Adds a point every second.
async fn note_points(page: Arc<Page>) {
    let (mut mark, mut every) = (LatencyMark::default(), time::interval(Duration::from_secs(1)));
    for second in 0.. {
        every.tick().await;
        let now = page.stats.snapshot(&mut mark);
        let point = Point {
            second,
            encoded: now.encoded,
            duplicated: now.duplicated,
            dropped: now.dropped_late + now.dropped_superseded + now.dropped_overflow,
            ladder: now.ladder.iter().map(|rung| rung.frames).collect(),
            latency_ms_p50: now.latency_ms_p50,
            latency_ms_p99: now.latency_ms_p99,
            bytes_in: now.source_bytes,
            bytes_out: now.sinks.iter().map(|sink| sink.bytes).collect(),
        };
        let mut points = lock(&page.points);
        if points.last.len() == POINTS_MAX {
            points.last.pop_front();
        }
        points.last.push_back(point);
        points.now = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_loopback_interface_are_its_own() {
        for host in ["localhost", "LocalHost:9464", "127.0.0.1", "127.0.0.1:9464", "[::1]", "[::1]:9464"] {
            assert!(is_loopback(host), "{host}");
        }
        let others = [
            "",
            "example.com",
            "localhost.example.com:80",
            "127.0.0.1.example.com",
            "10.0.0.1",
            "[::2]:80",
            "::1",
        ];
        for host in others {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
