//! HTTP: metrics, health, and a page for whoever looks after a relay.
//!
//! In: the counters of a relay. Out: answers, on one thread, each connection for one of them and for a bounded time: who
//! reads slowly, sends slowly or comes in crowds waits, and the relay does not.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use tokio::sync::{Notify, Semaphore};
use tokio::time;

use super::metrics::{self, Metrics};
use super::stats::Mark;
use super::{Snapshot, Stats};
use crate::error::{Error, Result};
use crate::media;
use crate::sync::lock;

/// Connections at a time; others wait to be taken.
const CONNECTIONS_MAX: usize = 256;
/// To say what is asked for.
const REQUEST_MAX: Duration = Duration::from_secs(2);
/// From the first byte to the last.
const CONNECTION_MAX: Duration = Duration::from_secs(10);
/// Bytes of a request.
const REQUEST_BYTES: usize = 16 << 10;
/// Seconds that the page shows.
const POINTS: usize = 600;
/// The output makes frames when none come: without one for so long, something hangs.
const STALLED: Duration = Duration::from_secs(10);

const PAGE: &str = include_str!("status.html");
/// The page is one file, and asks nobody else for anything.
const POLICY: &str = "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; \
                      script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'";

/// An address that is taken.
pub struct Server {
    listener: TcpListener,
    end: Arc<Notify>,
}

/// Its drop ends the server.
pub struct ServerEnd(Arc<Notify>);

impl Drop for ServerEnd {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Server {
    /// Takes the address.
    pub fn bind(address: SocketAddr) -> Result<Server> {
        let bound = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        bound.map(|listener| Server { listener, end: Arc::default() }).map_err(|e| {
            Error::new(
                format!("--metrics {address}"),
                format!("cannot be listened at: {e}"),
                "choose another",
            )
        })
    }

    /// What ends it.
    pub fn end(&self) -> ServerEnd {
        ServerEnd(self.end.clone())
    }

    /// Answers until the end.
    pub fn run(self, stats: Arc<Stats>) -> Result<()> {
        let broken =
            |e: std::io::Error| Error::new("--metrics", format!("does not work: {e}"), "leave it out");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(broken)?;
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(self.listener).map_err(broken)?;
            let page = Arc::new(Page::new(stats));
            tokio::spawn(note_points(page.clone()));
            tokio::spawn(serve(listener, routes(page)));
            self.end.notified().await;
            Ok(())
        })
    }
}

async fn serve(listener: tokio::net::TcpListener, routes: Router) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let slot = slots.clone().acquire_owned().await.expect("it is never closed");
        let Ok((stream, _)) = listener.accept().await else {
            // No handle is left: some will be.
            time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let service = TowerToHyperService::new(routes.clone());
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_MAX)
                .max_buf_size(REQUEST_BYTES)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // Whoever is not served by then, or breaks off, is told nothing.
            let _ = time::timeout(CONNECTION_MAX, connection).await;
            drop(slot);
        });
    }
}

fn routes(page: Arc<Page>) -> Router {
    let html = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, POLICY)];
    Router::new()
        .route("/", get(async move || (html, PAGE)))
        .route("/metrics", get(async |State(page): State<Arc<Page>>| page.metrics()))
        .route("/healthz", get(async |State(page): State<Arc<Page>>| page.health()))
        .route("/readyz", get(async |State(page): State<Arc<Page>>| page.readiness()))
        .route("/status.json", get(async |State(page): State<Arc<Page>>, uri: Uri| page.status(&uri)))
        .route("/before.jpg", get(async |State(page): State<Arc<Page>>| page.frame(0)))
        .route("/after.jpg", get(async |State(page): State<Arc<Page>>| page.frame(1)))
        .with_state(page)
}

/// What is answered with.
struct Page {
    stats: Arc<Stats>,
    metrics: Metrics,
    began: Instant,
    points: Mutex<Points>,
    /// A pair of frames by its number, as far as it was asked for.
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
    /// Counts seconds.
    number: u64,
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

/// What the page asks for every second.
#[derive(Serialize)]
struct Status<'a> {
    version: &'static str,
    source: &'a str,
    latency_ms_max: u128,
    up_s: u64,
    now: Snapshot,
    points: Vec<Point>,
    /// The newest pair of frames.
    frame: u64,
}

impl Page {
    fn new(stats: Arc<Stats>) -> Page {
        let (metrics, began) = (Metrics::new(stats.clone()), Instant::now());
        Page { stats, metrics, began, points: Mutex::default(), jpegs: Mutex::default() }
    }

    fn metrics(&self) -> Response {
        ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], self.metrics.text()).into_response()
    }

    /// Whether it does what it is there for, or waits for its source.
    fn health(&self) -> Response {
        match self.stats.since_last_frame() {
            Some(silent) if silent > STALLED => {
                let told = format!("no frame went out for {} s\n", silent.as_secs());
                (StatusCode::SERVICE_UNAVAILABLE, told).into_response()
            }
            _ => "ok\n".into_response(),
        }
    }

    /// Whether the source is seen by somebody.
    fn readiness(&self) -> Response {
        let is_taken = self.stats.sinks.iter().any(|sink| sink.connected.load(Relaxed));
        let problem = match (self.stats.on_air.load(Relaxed), is_taken) {
            (true, true) => return "ok\n".into_response(),
            (false, _) => "the source is not there\n",
            (true, false) => "no sink takes the stream\n",
        };
        (StatusCode::SERVICE_UNAVAILABLE, problem).into_response()
    }

    /// `since`: the last point that the page has. Whoever asks wants to see a frame, too.
    fn status(&self, uri: &Uri) -> Response {
        let since = uri.query().and_then(|query| query.strip_prefix("since=")?.parse::<u64>().ok());
        let points = lock(&self.points);
        let new = points.last.iter().filter(|point| since.is_none_or(|since| point.number > since));
        let status = Status {
            version: env!("CARGO_PKG_VERSION"),
            source: &self.stats.source,
            latency_ms_max: self.stats.latency_max.as_millis(),
            up_s: self.began.elapsed().as_secs(),
            now: points.now.clone().unwrap_or_else(|| self.stats.snapshot(&mut Mark::default())),
            points: new.cloned().collect(),
            frame: self.stats.want_frame(),
        };
        ([(CACHE_CONTROL, "no-store")], Json(status)).into_response()
    }

    /// Before (0) or after (1).
    fn frame(&self, which: usize) -> Response {
        const HEADERS: [(HeaderName, &str); 2] = [(CONTENT_TYPE, "image/jpeg"), (CACHE_CONTROL, "no-store")];
        let mut jpegs = lock(&self.jpegs);
        let Some((number, frame)) = self.stats.shown(which) else {
            return (StatusCode::NOT_FOUND, "there was no frame yet\n").into_response();
        };
        if jpegs.0 != number {
            *jpegs = (number, Default::default());
        }
        let made = match jpegs.1[which].take() {
            Some(made) => Ok(made),
            None => media::jpeg(frame),
        };
        match made {
            Ok(made) => (HEADERS, jpegs.1[which].insert(made).clone()).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        }
    }
}

/// A point a second, for as long as the server runs.
async fn note_points(page: Arc<Page>) {
    let (mut mark, mut every) = (Mark::default(), time::interval(Duration::from_secs(1)));
    for number in 0.. {
        every.tick().await;
        let now = page.stats.snapshot(&mut mark);
        let point = Point {
            number,
            encoded: now.encoded,
            duplicated: now.duplicated,
            dropped: now.dropped_late + now.dropped_past + now.dropped_full,
            ladder: now.ladder.iter().map(|rung| rung.frames).collect(),
            latency_ms_p50: now.latency_ms_p50,
            latency_ms_p99: now.latency_ms_p99,
            bytes_in: now.bytes,
            bytes_out: now.sinks.iter().map(|sink| sink.bytes).collect(),
        };
        let mut points = lock(&page.points);
        if points.last.len() == POINTS {
            points.last.pop_front();
        }
        points.last.push_back(point);
        points.now = Some(now);
    }
}
