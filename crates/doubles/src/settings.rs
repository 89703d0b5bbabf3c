//! What the double is told to be: the `ISC_DOUBLE_*` environment, read once. The table is in the crate's own words.

use std::path::PathBuf;
use std::sync::OnceLock;

/// The version pretended where none is asked for.
pub const DEFAULT_VERSION: u32 = 120901;

/// When finished work may appear in buffers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Late {
    /// As soon as it has finished.
    No,
    /// Only in a forced flush.
    Forced,
    /// Only at the very end, after the program's own exit handlers.
    Exit,
}

/// One field a knob, named as the knob is.
pub struct Settings {
    pub version: u32,
    pub absent: Vec<String>,
    /// Kind and the code it fails with.
    pub fail_enable: Vec<(u32, u32)>,
    pub subscriber_busy: bool,
    pub buffer_bytes: usize,
    pub drop_every: u64,
    pub zero_every: u64,
    pub null_name_every: u64,
    pub unknown_every: u64,
    pub skew_ppm: f64,
    pub offset_ns: i64,
    pub kernel_ns: u64,
    pub latency_ns: u64,
    pub lazy_ns: u64,
    pub late: Late,
    pub forced_zero: bool,
    pub timestamp_refused: bool,
    pub devices: u32,
    pub no_driver: bool,
    pub stolen_after: u64,
    pub throttle: u64,
    pub truth: Option<PathBuf>,
}

/// The settings of this process.
pub fn get() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(read)
}

/// Of a knob, its text; unset and empty are the same.
fn text(knob: &str) -> Option<String> {
    std::env::var(format!("ISC_DOUBLE_{knob}"))
        .ok()
        .filter(|text| !text.is_empty())
}

/// Of a knob, its number; what is not a number is the default.
fn number<T: std::str::FromStr>(knob: &str, default: T) -> T {
    text(knob)
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(default)
}

/// Whether a knob is set, and not to 0.
fn on(knob: &str) -> bool {
    text(knob).is_some_and(|text| text != "0")
}

fn read() -> Settings {
    let list = |knob: &str| -> Vec<String> {
        let text = text(knob).unwrap_or_default();
        text.split(',')
            .map(|one| one.trim().to_owned())
            .filter(|one| !one.is_empty())
            .collect()
    };
    let fail = |one: &String| {
        let (kind, code) = one.split_once(':').unwrap_or((one, "14"));
        Some((kind.parse().ok()?, code.parse().ok()?))
    };
    Settings {
        version: number("VERSION", DEFAULT_VERSION),
        absent: list("ABSENT"),
        fail_enable: list("FAIL_ENABLE").iter().filter_map(fail).collect(),
        subscriber_busy: on("SUBSCRIBER_BUSY"),
        buffer_bytes: number("BUFFER_BYTES", usize::MAX),
        drop_every: number("DROP_EVERY", 0),
        zero_every: number("ZERO_EVERY", 0),
        null_name_every: number("NULL_NAME_EVERY", 0),
        unknown_every: number("UNKNOWN_EVERY", 0),
        skew_ppm: number("SKEW_PPM", 0.0),
        offset_ns: number("OFFSET_NS", 0),
        kernel_ns: number("KERNEL_NS", 5_000),
        latency_ns: number("LATENCY_NS", 2_000),
        lazy_ns: number("LAZY_NS", 0),
        late: match text("LATE").as_deref() {
            None | Some("0") => Late::No,
            Some("exit") => Late::Exit,
            Some(_) => Late::Forced,
        },
        forced_zero: on("FORCED_ZERO"),
        timestamp_refused: on("TIMESTAMP_REFUSED"),
        devices: number("DEVICES", 1),
        no_driver: on("NO_DRIVER"),
        stolen_after: number("STOLEN_AFTER", 0),
        throttle: number("THROTTLE", 0),
        truth: text("TRUTH").map(PathBuf::from),
    }
}

impl Settings {
    /// What `cuptiGetVersion` says: a small number before CUDA 13, xxyyzz from then on. 11.8 and 12.1 say the same.
    pub fn cupti_version(&self) -> u32 {
        match self.version {
            0..120000 => 18,
            120000 => 19,
            120001..120200 => 18,
            120200..120300 => 20,
            120300..120400 => 21,
            120400..120500 => 22,
            120500..120600 => 23,
            120600..120800 => 24,
            120800..120900 => 26,
            120900 => 27,
            120901..130000 => 28,
            newer => newer,
        }
    }

    /// Whether `every` comes round with the `n`th, counted from 1; 0 is never.
    pub fn nth(every: u64, n: u64) -> bool {
        every != 0 && n.is_multiple_of(every)
    }
}
