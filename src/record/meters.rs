//! What NVML says of the machine's GPUs, once a second, as counters of the recorded program.
//!
//! From a thread of its own: a call may take as long as the driver likes, and records must be taken meanwhile.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use inferscope_spool::sys;
use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};

use super::drain::Drain;
use crate::trace::{Event, Kind};

/// Between two readings. NVML's own utilisation is over the second, or sixth of it, before (nvml.h).
const EVERY: Duration = Duration::from_secs(1);
/// Readings that wait until the program says which device is which.
const MOST: usize = 4096;

/// Names of the counters, with their units.
const NAMES: [&str; 8] = [
    "gpu.utilization_percent",
    "gpu.memory_bytes",
    "gpu.memory_busy_percent",
    "gpu.sm_mhz",
    "gpu.memory_mhz",
    "gpu.power_mw",
    "gpu.temperature_c",
    "gpu.throttle_reasons",
];

/// One reading of one GPU.
#[derive(Debug)]
struct Reading {
    at_ns: i64,
    index: u32,
    /// 32 hexadecimal digits.
    uuid: String,
    values: [Option<f64>; NAMES.len()],
}

/// The thread that reads, and what it has read.
#[derive(Debug)]
pub struct Meters {
    readings: Receiver<Reading>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    waiting: VecDeque<Reading>,
    pid: u32,
    /// It was said that records stopped.
    said: bool,
}

/// A GPU that is at work for so long and gives no record: the probe fetches them every second.
const SILENT_NS: i64 = 3_000_000_000;

impl Meters {
    /// Begins, if there is an NVML. `pid`: the program.
    pub fn start(pid: u32) -> Option<Meters> {
        if !sys::loads(c"libnvidia-ml.so.1") {
            return None;
        }
        let (to, readings) = channel();
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name("isc-nvml".into());
        let thread = thread.spawn(move || {
            let Ok(nvml) = Nvml::init() else { return };
            while read(&nvml, &to).is_some() {
                if !matches!(stopped.recv_timeout(EVERY), Err(RecvTimeoutError::Timeout)) {
                    return;
                }
            }
        });
        Some(Meters {
            readings,
            stop: Some(stop),
            thread: Some(thread.ok()?),
            waiting: VecDeque::new(),
            pid,
            said: false,
        })
    }

    /// Appends rows of what was read. A device has the number that the program's runtime gives it, by its UUID: NVML
    /// counts all GPUs, in another order. Until that is known readings wait; at the `end` they keep NVML's number.
    pub fn take(&mut self, drain: &mut Drain, out: &mut Vec<Event>, end: bool) {
        self.waiting.extend(self.readings.try_iter());
        let known = drain.device_numbers();
        if known.is_empty() && !end && self.waiting.len() < MOST {
            return;
        }
        while let Some(reading) = self.waiting.pop_front() {
            let number = known.get(&reading.uuid).copied();
            let Some(device) = number.or(known.is_empty().then_some(reading.index)) else {
                continue; // a GPU that the program does not see
            };
            let (works, last_ns) = (reading.values[0] > Some(0.0), drain.last_device_ns());
            if works && last_ns > 0 && reading.at_ns - last_ns > SILENT_NS && !self.said {
                self.said = true;
                let text = format!(
                    "GPU {device} is at work, and no records of it came for {} s: another profiler in the program, such as \
                     torch.profiler, may have taken them over, or another program is using the GPU",
                    SILENT_NS / 1_000_000_000
                );
                eprintln!("isc-record: {text}");
                drain.note_all(&text);
            }
            for (name, value) in NAMES.iter().zip(reading.values) {
                if let Some(value) = value {
                    let name = drain.names.sym(name);
                    let tid = u64::from(self.pid);
                    let mut row = Event::new(Kind::Counter, name, reading.at_ns, 0, self.pid, tid);
                    row.device = Some(device);
                    row.value = Some(value);
                    out.push(row);
                }
            }
        }
    }
}

impl Drop for Meters {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic in it has nothing to add here
        }
    }
}

/// Reads every GPU once; `None` when nobody listens any more.
fn read(nvml: &Nvml, to: &Sender<Reading>) -> Option<()> {
    for index in 0..nvml.device_count().unwrap_or(0) {
        let Ok(device) = nvml.device_by_index(index) else {
            continue;
        };
        let used = device.utilization_rates().ok();
        let number = |value: u32| f64::from(value);
        let uuid = device.uuid().unwrap_or_default();
        let reading = Reading {
            at_ns: sys::monotonic_ns(),
            index,
            uuid: uuid.chars().filter(char::is_ascii_hexdigit).collect(),
            values: [
                used.as_ref().map(|used| number(used.gpu)),
                device.memory_info().ok().map(|memory| memory.used as f64),
                used.as_ref().map(|used| number(used.memory)),
                device.clock_info(Clock::SM).ok().map(number),
                device.clock_info(Clock::Memory).ok().map(number),
                device.power_usage().ok().map(number),
                device.temperature(TemperatureSensor::Gpu).ok().map(number),
                (device.current_throttle_reasons().ok()).map(|reasons| reasons.bits() as f64),
            ],
        };
        to.send(reading).ok()?;
    }
    Some(())
}
