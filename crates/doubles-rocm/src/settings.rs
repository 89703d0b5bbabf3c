//! What the double is told to be: the `ISC_DOUBLE_*` environment, read once. The table is in the crate's own words.

use std::path::PathBuf;
use std::sync::OnceLock;

/// One field a knob, named as the knob is.
pub struct Settings {
    pub version: u32,
    pub devices: u32,
    pub kernel_ns: u64,
    pub latency_ns: u64,
    pub offset_ns: u64,
    pub drop_every: u64,
    pub zero_every: u64,
    pub unknown_every: u64,
    pub long_queues: bool,
    pub refuse: Vec<String>,
    pub truth: Option<PathBuf>,
}

impl Settings {
    /// Whether records have an ancestor.
    pub fn new_layout(&self) -> bool {
        self.version >= 10_000
    }

    pub fn refuses(&self, what: &str) -> bool {
        self.refuse.iter().any(|refused| refused == what)
    }
}

/// The settings of this process.
pub fn get() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| Settings {
        version: number("VERSION", 10_000) as u32,
        devices: number("DEVICES", 2) as u32,
        kernel_ns: number("KERNEL_NS", 5_000),
        latency_ns: number("LATENCY_NS", 2_000),
        offset_ns: number("OFFSET_NS", 7_000_000_000_000),
        drop_every: number("DROP_EVERY", 0),
        zero_every: number("ZERO_EVERY", 0),
        unknown_every: number("UNKNOWN_EVERY", 0),
        long_queues: number("LONG_QUEUES", 0) != 0,
        refuse: text("REFUSE")
            .map(|all| all.split(',').map(str::to_owned).collect())
            .unwrap_or_default(),
        truth: text("TRUTH").map(PathBuf::from),
    })
}

/// Of a knob, its text; unset and empty are the same.
fn text(knob: &str) -> Option<String> {
    std::env::var(format!("ISC_DOUBLE_{knob}"))
        .ok()
        .filter(|text| !text.is_empty())
}

/// Of a knob, its number; what is not a number is the default.
fn number(knob: &str, default: u64) -> u64 {
    text(knob)
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}
