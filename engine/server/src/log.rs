//! The log on standard error: text or JSON, and warnings that repeat are written a few times a second and counted
//! beyond that, so that a storm fills no drive. The count is told with the next line of the same place, within a minute
//! in a line of its own, and in `/metrics`. A thread of its own writes the lines out: whoever reads standard error and
//! stalls holds up nothing else, and what does not fit the queue is counted and told likewise.

mod json;
mod panics;
mod queue;

use crate::config::{LogFormat, LogLevel, LogSettings};
use crate::exit::Failure;
use nix::unistd::{Pid, gettid};
use queue::Queue;
use std::collections::HashMap;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber, warn};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Json, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The stretch of time that repeats are counted in.
const WINDOW: Duration = Duration::from_secs(1);
/// How often [`tell_suppressed`] wants to be called.
pub(crate) const TELL_EVERY: Duration = Duration::from_secs(60);

/// Bytes of lines that may wait for standard error.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// How long the end of the process waits for them.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// What waits for standard error.
static QUEUE: Queue = Queue::new(WAITING_BYTES_MAX);

/// The thread that writes it out, once the log has started.
static WRITER: OnceLock<Pid> = OnceLock::new();

/// What judges this process's log.
static LIMITER: OnceLock<Arc<Limiter>> = OnceLock::new();

/// The form of this process's lines, once the log has started.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// Starts the log. `TERN_LOG` (over the file) chooses what is written, `TERN_LOG_FORMAT` its form. Panics are told there
/// from now on.
///
/// # Errors
/// `TERN_LOG_FORMAT` is neither, or `TERN_LOG` is no filter; the system gives no thread.
pub(crate) fn start(settings: LogSettings) -> Result<(), Failure> {
    let format = match std::env::var("TERN_LOG_FORMAT") {
        Ok(text) => format_named(&text)?,
        Err(_) => settings.format,
    };
    let filter = filter_of(std::env::var("TERN_LOG").ok().as_deref(), settings.level)?;
    start_writer().map_err(|error| Failure::start_up(format!("log: {error}")))?;
    let _ = FORMAT.set(format);
    panics::tell();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Line)
        // A log that cannot be written must not end the node.
        .log_internal_errors(false);
    let limiter =
        Arc::clone(LIMITER.get_or_init(|| Arc::new(Limiter::new(settings.repeats_per_s, Instant::now))));
    match format {
        LogFormat::Text => {
            let inner = Format::default();
            builder.with_ansi(io::stderr().is_terminal()).event_format(Calm { inner, limiter }).init();
        }
        LogFormat::Json => {
            let inner = Format::default().json();
            builder.fmt_fields(JsonFields::new()).event_format(CalmJson(Calm { inner, limiter })).init();
        }
    }
    Ok(())
}

fn start_writer() -> io::Result<()> {
    let (tell, told) = mpsc::channel();
    thread::Builder::new().name("log".into()).spawn(move || {
        let _ = tell.send(gettid());
        QUEUE.write_to(io::stderr());
    })?;
    if let Ok(writer) = told.recv() {
        let _ = WRITER.set(writer);
    }
    Ok(())
}

/// The thread that writes the log, if it has started.
pub(crate) fn writer() -> Option<Pid> {
    WRITER.get().copied()
}

/// A line for the queue: the log hands each over in one piece.
struct Line;

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        QUEUE.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until the log is written out, as far as somebody takes it: the process ends.
pub(crate) fn write_out() {
    QUEUE.wait_until_written(LAST_WAIT);
}

/// Why the process ends, when it does not end as it should: in the log's form, whatever the log leaves out.
pub(crate) fn say_last(text: &str) {
    let line = match FORMAT.get() {
        Some(LogFormat::Json) => json::line("ERROR", "tern", &serde_json::json!({ "message": text })),
        _ => format!("tern: {text}"),
    };
    if writer().is_some() {
        QUEUE.push(format!("{line}\n").as_bytes());
        write_out();
    } else {
        // Standard error may lie on the drive that is the trouble: the exit code must come all the same.
        let _ = writeln!(io::stderr(), "{line}");
    }
}

/// Says what was left out since it was last said, if anything was: where, and how often.
pub(crate) fn tell_suppressed() {
    tell_before(Instant::now());
}

/// The same for the last time: also of places whose second is not over.
pub(crate) fn tell_last_suppressed() {
    tell_before(Instant::now() + WINDOW);
}

fn tell_before(now: Instant) {
    let left_out_count = QUEUE.take_untold();
    if left_out_count > 0 {
        warn!(left_out_count, "lines were left out: standard error took them too slowly");
    }
    let untold = LIMITER.get().map(|limiter| limiter.take_untold(now)).unwrap_or_default();
    if untold.is_empty() {
        return;
    }
    let suppressed_count: u64 = untold.iter().map(|(_, count)| count).sum();
    let places: Vec<String> = untold.iter().map(|(place, count)| format!("{count} x {place}")).collect();
    warn!(suppressed_count, places = places.join(", "), "repeated warnings were left out");
}

/// Lines that were left out since the start.
pub(crate) fn suppressed_count() -> u64 {
    let repeated = LIMITER.get().map_or(0, |limiter| limiter.suppressed_count.load(Ordering::Relaxed));
    repeated + QUEUE.left_out_count()
}

/// What is written: what `TERN_LOG` says, or else the configuration.
fn filter_of(text: Option<&str>, level: LogLevel) -> Result<EnvFilter, Failure> {
    let text = text.filter(|text| !text.trim().is_empty()).unwrap_or(level.name());
    EnvFilter::try_new(text).map_err(|error| {
        let allowed = "error, warn, info, debug, trace or off, also by part of the program: warn,tern=debug";
        Failure::usage(format!("TERN_LOG = {text}: {error}, allowed: {allowed}"))
    })
}

fn format_named(text: &str) -> Result<LogFormat, Failure> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        other => Err(Failure::usage(format!("TERN_LOG_FORMAT = {other}, allowed: text or json"))),
    }
}

/// What becomes of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// Written, after word of so many that were not.
    Written {
        suppressed_count: u64,
    },
    Suppressed,
}

/// Tells the time.
type Clock = Box<dyn Fn() -> Instant + Send + Sync>;

/// Counts the events of each place in the program.
struct Limiter {
    each_per_s: u32,
    clock: Clock,
    places: Mutex<HashMap<Identifier, Repeats>>,
    /// Of all places, since the start.
    suppressed_count: AtomicU64,
}

/// Where a line of the log comes from: module and line of the program's text.
type Place = (&'static str, u32);

#[derive(Debug)]
struct Repeats {
    place: Place,
    since: Instant,
    written_count: u32,
    /// Since it was last told.
    suppressed_count: u64,
}

impl Limiter {
    fn new(each_per_s: u32, clock: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        let clock = Box::new(clock);
        Self { each_per_s, clock, places: Mutex::default(), suppressed_count: AtomicU64::new(0) }
    }

    /// Places are written in the program's text, so that their number is bounded.
    fn judge(&self, id: Identifier, place: Place, now: Instant) -> Verdict {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Repeats { place, since: now, written_count: 0, suppressed_count: 0 };
        let repeats = places.entry(id).or_insert_with(fresh);
        let mut suppressed_count = 0;
        if now.saturating_duration_since(repeats.since) >= WINDOW {
            suppressed_count = std::mem::replace(repeats, fresh()).suppressed_count;
        }
        if repeats.written_count == self.each_per_s {
            repeats.suppressed_count += 1;
            self.suppressed_count.fetch_add(1, Ordering::Relaxed);
            return Verdict::Suppressed;
        }
        repeats.written_count += 1;
        Verdict::Written { suppressed_count }
    }

    /// What no line has told yet, most first. A place whose second is not over tells it itself soon, or the next time.
    fn take_untold(&self, now: Instant) -> Vec<(String, u64)> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |repeats: &Repeats| now.saturating_duration_since(repeats.since) >= WINDOW;
        let untold = places.values_mut().filter(|repeats| repeats.suppressed_count > 0 && is_over(repeats));
        let told = untold.map(|repeats| {
            let (module, line) = repeats.place;
            (format!("{module}:{line}"), std::mem::take(&mut repeats.suppressed_count))
        });
        let mut told: Vec<_> = told.collect();
        told.sort_unstable_by(|(a, more), (b, less)| (less, a).cmp(&(more, b)));
        told
    }

    fn judge_event(&self, meta: &'static Metadata<'static>) -> Verdict {
        // What is said on purpose is said; only what goes wrong repeats by itself.
        if *meta.level() > Level::WARN {
            return Verdict::Written { suppressed_count: 0 };
        }
        self.judge(meta.callsite(), (meta.target(), meta.line().unwrap_or(0)), (self.clock)())
    }
}

/// A format that leaves repeats out.
struct Calm<F> {
    inner: F,
    limiter: Arc<Limiter>,
}

impl<S, N> FormatEvent<S, N> for Calm<Format>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match self.limiter.judge_event(event.metadata()) {
            Verdict::Suppressed => Ok(()),
            Verdict::Written { suppressed_count } => {
                if suppressed_count > 0 {
                    writeln!(out, "suppressed {suppressed_count} more of the next line")?;
                }
                self.inner.format_event(context, out, event)
            }
        }
    }
}

/// The same in JSON.
struct CalmJson(Calm<Format<Json>>);

impl<S> FormatEvent<S, JsonFields> for CalmJson
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Calm { inner, limiter } = &self.0;
        match limiter.judge_event(event.metadata()) {
            Verdict::Suppressed => Ok(()),
            Verdict::Written { suppressed_count } => {
                if suppressed_count > 0 {
                    let message = "suppressed more of the next line";
                    let fields =
                        serde_json::json!({ "message": message, "suppressed_count": suppressed_count });
                    let meta = event.metadata();
                    let line = json::line(meta.level().as_str(), meta.target(), &fields);
                    writeln!(out, "{line}")?;
                }
                inner.format_event(context, out, event)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use tracing_subscriber::fmt::MakeWriter;

    /// Two places to be told apart.
    fn two_places() -> [Identifier; 2] {
        use tracing::callsite::Callsite;
        struct Place(u8);
        impl Callsite for Place {
            fn set_interest(&self, _: tracing::subscriber::Interest) {}
            fn metadata(&self) -> &Metadata<'_> {
                unreachable!("place {} has none", self.0)
            }
        }
        static PLACES: [Place; 2] = [Place(0), Place(1)];
        [Identifier(&PLACES[0]), Identifier(&PLACES[1])]
    }

    #[test]
    fn repeats_are_counted_and_told() {
        let (limiter, start) = (Limiter::new(2, Instant::now), Instant::now());
        let [one, other] = two_places();
        let judge =
            |id: &Identifier, ms| limiter.judge(id.clone(), ("ring", 7), start + Duration::from_millis(ms));
        let written = |suppressed_count| Verdict::Written { suppressed_count };
        assert_eq!(judge(&one, 0), written(0));
        assert_eq!(judge(&one, 1), written(0));
        for ms in 2..10 {
            assert_eq!(judge(&one, ms), Verdict::Suppressed);
        }
        assert_eq!(judge(&other, 10), written(0), "another place has its own count");
        assert_eq!(judge(&one, 1000), written(8));
        assert_eq!(judge(&one, 1001), written(0));
        assert_eq!(judge(&one, 1002), Verdict::Suppressed);
    }

    #[test]
    fn what_no_line_has_told_is_told_once() {
        let (limiter, start) = (Limiter::new(1, Instant::now), Instant::now());
        let [one, other] = two_places();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let judge = |id: &Identifier, name, ms| limiter.judge(id.clone(), (name, 7), at(ms));
        for ms in 0..3 {
            judge(&one, "ring", ms);
        }
        for ms in 0..10 {
            judge(&other, "disk", ms);
        }
        assert_eq!(limiter.take_untold(at(500)), [], "its second is not over");
        let told = [("disk:7".to_string(), 9), ("ring:7".to_string(), 2)];
        assert_eq!(limiter.take_untold(at(60_000)), told);
        assert_eq!(limiter.take_untold(at(120_000)), [], "once");
        assert_eq!(
            judge(&one, "ring", 120_001),
            Verdict::Written { suppressed_count: 0 },
            "nor by the next line"
        );
        assert_eq!(limiter.suppressed_count.load(Ordering::Relaxed), 11, "the sum stays");
    }

    #[derive(Clone, Default)]
    struct Text(Arc<Mutex<Vec<u8>>>);

    impl Write for Text {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Text {
        type Writer = Self;
        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    /// A limiter, and what moves its clock on by so many milliseconds.
    fn limiter_with_clock() -> (Arc<Limiter>, impl Fn(u64)) {
        let (start, passed_ms) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let theirs = Arc::clone(&passed_ms);
        let clock = move || start + Duration::from_millis(theirs.load(Ordering::Relaxed));
        let go_on = move |ms| {
            passed_ms.fetch_add(ms, Ordering::Relaxed);
        };
        (Arc::new(Limiter::new(3, clock)), go_on)
    }

    fn storm(go_on: impl Fn(u64)) {
        for turn in 0..2 {
            for shard in 0..50 {
                tracing::warn!(shard, "accepting paused");
            }
            tracing::info!(turn, "still here");
            go_on(1_000);
        }
        for n in 0..50 {
            tracing::info!(n, "said on purpose");
        }
    }

    #[test]
    fn a_storm_of_warnings_is_a_few_lines() {
        let text = Text::default();
        let (limiter, go_on) = limiter_with_clock();
        let format = Calm { inner: Format::default(), limiter };
        let builder = tracing_subscriber::fmt().with_writer(text.clone()).with_ansi(false);
        tracing::subscriber::with_default(builder.event_format(format).finish(), || storm(go_on));
        let text = String::from_utf8(text.0.lock().unwrap().clone()).unwrap();
        let count = |word: &str| text.lines().filter(|line| line.contains(word)).count();
        assert_eq!((count("accepting paused"), count("still here"), count("said on purpose")), (6, 2, 50));
        assert_eq!(count("suppressed 47 more"), 1, "{text}");
    }

    #[test]
    fn the_same_as_json_lines() {
        let text = Text::default();
        let (limiter, go_on) = limiter_with_clock();
        let format = CalmJson(Calm { inner: Format::default().json(), limiter });
        let builder = tracing_subscriber::fmt().with_writer(text.clone()).fmt_fields(JsonFields::new());
        tracing::subscriber::with_default(builder.event_format(format).finish(), || storm(go_on));
        let text = String::from_utf8(text.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
            .collect();
        let paused = lines.iter().filter(|line| line["fields"]["message"] == "accepting paused");
        assert_eq!(paused.count(), 6);
        let told = lines.iter().find(|line| line["fields"]["suppressed_count"] == 47).unwrap();
        assert_eq!(told["level"], "WARN");
        // As `2026-01-31T12:00:00.000000Z`, also in the lines that are no events.
        let times = lines.iter().filter_map(|line| line["timestamp"].as_str());
        assert_eq!(times.filter(|time| time.len() == 27 && time.ends_with('Z')).count(), lines.len());
    }

    #[test]
    fn a_wrong_filter_is_named() {
        for (right, shown) in
            [(None, "info"), (Some(""), "info"), (Some("warn,tern=debug"), "tern=debug,warn")]
        {
            assert_eq!(filter_of(right, LogLevel::Info).unwrap().to_string(), shown);
        }
        assert_eq!(filter_of(None, LogLevel::Debug).unwrap().to_string(), "debug", "the configuration's");
        assert_eq!(
            filter_of(Some("warn"), LogLevel::Debug).unwrap().to_string(),
            "warn",
            "over the configuration"
        );
        let text = filter_of(Some("tern=loud"), LogLevel::Info).unwrap_err().text;
        assert!(text.contains("TERN_LOG = tern=loud") && text.contains("allowed: error, warn"), "{text}");
    }

    #[test]
    fn a_wrong_format_is_named() {
        assert_eq!(format_named("json").unwrap(), LogFormat::Json);
        let text = format_named("xml").unwrap_err().text;
        assert!(text.contains("TERN_LOG_FORMAT = xml") && text.contains("text or json"), "{text}");
    }
}
