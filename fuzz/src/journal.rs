//! A journal of any bytes, then segments that hold some of it again.

use inferscope::record::drain::{Drain, ProcessKey};
use inferscope::record::journal::{Frame, Known, Replay};

/// Reads `data` as a journal; the head that every journal has need not be in it.
pub fn run(data: &[u8]) {
    let whole = [b"ISCJRNL1", data].concat();
    let _ = Replay::new(data).map(|replay| replay.take(2).count());
    let Ok(replay) = Replay::new(&whole[..]) else {
        return;
    };
    let (mut known, mut drain, mut out) = (Known::default(), Drain::default(), Vec::new());
    let mut last = None;
    for frame in replay {
        match frame {
            Frame::Records { chain, bytes } => {
                let (rest, new) = known.rest(&chain, &bytes);
                assert!(new.len() <= bytes.len() && rest.lost <= chain.lost);
                known.see(&chain, &bytes);
                let key = ProcessKey {
                    pid: chain.pid,
                    start_ticks: chain.start_ticks,
                };
                drain.records(key, chain.tid, &bytes, &mut out);
                if chain.lost > 0 {
                    drain.lost(key, chain.tid, chain.lost, &mut out);
                }
                last = Some((chain, bytes));
            }
            Frame::Rows(_) | Frame::Chunk(_) => {}
            Frame::Process(key) => {
                drain.process(key);
            }
        }
        out.clear();
    }
    if let Some((chain, bytes)) = last.filter(|(chain, _)| chain.at < 1 << 32) {
        assert!(known.rest(&chain, &bytes).1.is_empty(), "taken twice");
    }
    drain.finish(&mut out);
}
