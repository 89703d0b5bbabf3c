//! A pool and a reader over real files: what is kept, in which order, and what is counted as lost.
#![cfg(not(loom))]

use inferscope_spool::record::{Record, Text};
use inferscope_spool::{Pool, Producer, Reader, Settings, layout};
use proptest::prelude::*;
use std::collections::HashMap;
use std::path::Path;

fn settings(dir: &Path, ring: u64, spill: u64) -> Settings {
    let settings = Settings {
        dir: dir.join("run"),
        spill: dir.join("spill"),
        ring_bytes: ring,
        spill_limit_bytes: spill,
    };
    for dir in [&settings.dir, &settings.spill] {
        std::fs::create_dir(dir).unwrap();
    }
    settings
}

fn mark(time: u64) -> Vec<u64> {
    Record::Mark {
        time,
        id: 1,
        flow: 0,
    }
    .words()
    .unwrap()
    .as_slice()
    .to_vec()
}

/// What came out: per thread the times in order, and the losses.
#[derive(Default)]
struct Sink {
    times: HashMap<u64, Vec<u64>>,
    names: Vec<String>,
    lost: u64,
}

impl Sink {
    fn drain(&mut self, reader: &mut Reader) -> u64 {
        let poll = reader
            .poll(&mut |chain, mut bytes| {
                self.lost += chain.lost;
                while !bytes.is_empty() {
                    let (record, len) = Record::decode(bytes).expect("whole records only");
                    bytes = &bytes[len..];
                    match record {
                        Record::Mark { time, .. } => {
                            self.times.entry(chain.tid).or_default().push(time)
                        }
                        Record::Text(Text::Note(note)) => self.names.push(note.to_owned()),
                        Record::Text(Text::Metadata(_)) => {}
                        other => panic!("{other:?}"),
                    }
                }
            })
            .unwrap();
        reader.release();
        poll.bytes
    }

    fn kept(&self) -> u64 {
        self.times.values().map(|times| times.len() as u64).sum()
    }

    fn in_order(&self) -> bool {
        self.times
            .values()
            .all(|times| times.is_sorted_by(|a, b| a < b))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn kept_and_lost_are_what_was_pushed_and_order_is_kept(
        steps in prop::collection::vec((0u8..12, 1usize..9000), 1..60),
        ring in 1u64..6, spill in 0u64..3,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path(), ring << 17, spill << 20);
        let pool = Pool::create(&settings, 1, 2).unwrap();
        let mut reader = Reader::open(&settings.dir, &settings.spill).unwrap();
        let mut producers: Vec<Producer> = (10..13).map(|tid| pool.producer(tid)).collect();
        let (mut sink, mut pushed, mut time) = (Sink::default(), 0, 0);
        for (what, count) in steps {
            match what {
                0..=5 => for _ in 0..count {
                    time += 1;
                    pushed += 1;
                    producers[usize::from(what) % 3].push(&mark(time));
                },
                6 => for _ in 0..count / 8 {
                    time += 1;
                    pushed += 1;
                    let text = Text::Metadata("{\"a\": \"some text that takes room\"}").encode();
                    producers[count % 3].push_pair(&text, &mark(time));
                },
                7 => {
                    // the thread ends and its id is used again
                    let tid = 10 + (count % 3) as u64;
                    let old = std::mem::replace(&mut producers[count % 3], pool.producer(tid));
                    old.close();
                }
                8 | 9 => { pool.tick(); }
                _ => { sink.drain(&mut reader); }
            }
        }
        drop(producers);
        drop(pool);
        reader.ended(1, 2);
        sink.drain(&mut reader);
        prop_assert_eq!(sink.kept() + sink.lost, pushed);
        prop_assert!(sink.in_order() || sink.times.len() > 3);
        prop_assert!(!settings.dir.join("1-2").exists());
    }
}

#[test]
fn threads_that_write_while_the_reader_reads_lose_nothing_that_is_not_counted() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path(), 8 << 17, 64 << 20);
    let pool = Pool::create(&settings, 1, 2).unwrap();
    let mut reader = Reader::open(&settings.dir, &settings.spill).unwrap();
    let (mut sink, each) = (Sink::default(), 300_000u64);
    let producers: Vec<Producer> = (0..3)
        .map(|n| {
            let mut producer = pool.producer(100 + n);
            assert!(producer.push(&mark(1))); // each has its segment before they race for the others
            producer
        })
        .collect();
    std::thread::scope(|scope| {
        let writers: Vec<_> = producers
            .into_iter()
            .map(|mut producer| {
                scope.spawn(move || {
                    (2..=each).for_each(|time| {
                        producer.push(&mark(time));
                    })
                })
            })
            .collect();
        while writers.iter().any(|writer| !writer.is_finished()) {
            pool.tick();
            sink.drain(&mut reader);
        }
    });
    pool.tick();
    reader.ended(1, 2);
    sink.drain(&mut reader);
    assert_eq!(sink.kept() + sink.lost, 3 * each);
    assert!(sink.in_order());
    assert_eq!(sink.times.len(), 3);
}

#[test]
fn names_are_visited_before_the_records_that_need_them() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path(), 8 << 17, 8 << 20);
    let pool = Pool::create(&settings, 1, 2).unwrap();
    let mut producer = pool.producer(5);
    producer.push(&mark(1));
    assert!(pool.push_names(&Text::Note("known").encode()));
    let mut reader = Reader::open(&settings.dir, &settings.spill).unwrap();
    let mut tids = Vec::new();
    reader.poll(&mut |chain, _| tids.push(chain.tid)).unwrap();
    assert_eq!(tids, [0, 5]);
}

#[test]
fn a_second_reader_goes_on_where_the_first_released() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path(), 4 << 17, 8 << 20);
    let pool = Pool::create(&settings, 1, 2).unwrap();
    let mut producer = pool.producer(5);
    let mut first = Sink::default();
    {
        let mut reader = Reader::open(&settings.dir, &settings.spill).unwrap();
        (1..=10_000).for_each(|time| {
            producer.push(&mark(time));
        });
        first.drain(&mut reader);
        (10_001..=10_500).for_each(|time| {
            producer.push(&mark(time));
        });
        reader.poll(&mut |_, _| ()).unwrap(); // and dies: never released
    }
    let mut reader = Reader::open(&settings.dir, &settings.spill).unwrap();
    let mut second = Sink::default();
    for _ in 0..5 {
        second.drain(&mut reader);
    }
    assert_eq!(first.times[&5], (1..=10_000).collect::<Vec<_>>());
    assert_eq!(second.times[&5], (10_001..=10_500).collect::<Vec<_>>());
}

#[test]
fn a_full_ring_and_no_spill_is_a_loss_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path(), 0, 0);
    let pool = Pool::create(&settings, 1, 2).unwrap();
    let mut producer = pool.producer(5);
    let kept = (0..20_000)
        .filter(|&time| producer.push(&mark(time + 1)))
        .count() as u64;
    let mut late = pool.producer(6);
    assert!(!late.push(&mark(1)), "no segment left for a new thread");
    assert_eq!(
        kept,
        2 * (layout::RING_SEGMENT - layout::HEADER) as u64 / 32
    );
    let mut reader = Reader::open(&settings.dir, &settings.spill).unwrap();
    let mut sink = Sink::default();
    let mut lost = HashMap::new();
    let poll = reader
        .poll(&mut |chain, _| *lost.entry(chain.tid).or_default() += chain.lost)
        .unwrap();
    assert_eq!(poll.lost, 20_001 - kept);
    assert_eq!(lost, HashMap::from([(5, 20_000 - kept), (6, 1)]));
    drop(reader); // without a release: the next one finds the same
    let mut reader = Reader::open(&settings.dir, &settings.spill).unwrap();
    sink.drain(&mut reader);
    assert_eq!((sink.kept(), sink.lost), (kept, 20_001 - kept));
    sink.drain(&mut Reader::open(&settings.dir, &settings.spill).unwrap());
    assert_eq!(
        sink.lost,
        20_001 - kept,
        "what was released is not found again"
    );
    pool.tick();
    assert!(
        producer.push(&mark(30_000)),
        "drained segments are used again"
    );
}

#[test]
fn hostile_files_cost_rows_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path(), 4 << 17, 0);
    let pool = Pool::create(&settings, 1, 2).unwrap();
    pool.producer(5).push(&mark(1));
    drop(pool);
    let home = settings.dir.join("1-2");
    let good = std::fs::read(home.join("0.seg")).unwrap();
    let mut damaged = Vec::new();
    for (at, value) in [
        (0usize, 0u64),
        (8, 2),
        (16, u64::MAX),
        (16, 17),
        (24, 9),
        (32, 9),
    ] {
        let mut bytes = good.clone();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        damaged.push(bytes);
    }
    damaged.extend([Vec::new(), good[..100].to_vec(), good[..4000].to_vec()]);
    let count = damaged.len() as u64;
    for (n, bytes) in damaged.iter().enumerate() {
        std::fs::write(home.join(format!("{}.seg", 100 + n)), bytes).unwrap();
    }
    // believable, with impossible cursors and owners
    for (n, (at, value)) in [
        (128, u64::MAX),
        (192, u64::MAX),
        (64, u64::MAX),
        (88, u64::MAX),
    ]
    .iter()
    .enumerate()
    {
        let mut bytes = good.clone();
        bytes[*at..*at + 8].copy_from_slice(&u64::to_le_bytes(*value));
        std::fs::write(home.join(format!("{}.seg", 200 + n)), bytes).unwrap();
    }
    std::fs::create_dir(home.join("300.seg")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", home.join("301.seg")).unwrap();
    std::fs::create_dir(settings.dir.join("x-y")).unwrap();
    let mut reader = Reader::open(&settings.dir, &settings.spill).unwrap();
    let mut most = 0;
    for _ in 0..6 {
        let poll = reader
            .poll(&mut |_, bytes| assert!(bytes.len() <= 128 << 10))
            .unwrap();
        most = most.max(poll.damaged);
        reader.release();
    }
    assert_eq!(most, count + 2);
}

#[test]
fn a_run_that_is_gone_or_a_link_is_not_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let good = settings(dir.path(), 4 << 17, 8 << 20);
    let gone = Settings {
        dir: dir.path().join("gone"),
        ..good.clone()
    };
    assert!(Pool::create(&gone, 1, 2).is_err());
    assert!(!gone.dir.exists(), "a run that is over is not begun again");
    let link = Settings {
        dir: dir.path().join("link"),
        ..good.clone()
    };
    std::os::unix::fs::symlink(&good.dir, &link.dir).unwrap();
    assert!(Pool::create(&link, 1, 2).is_err());
    // where a file of ours is to be, a link leads elsewhere
    let elsewhere = dir.path().join("elsewhere");
    std::fs::write(&elsewhere, "kept").unwrap();
    std::fs::create_dir(good.dir.join("1-2")).unwrap();
    for n in 0..64 {
        let name = good.dir.join(format!("1-2/{n}.new"));
        std::os::unix::fs::symlink(&elsewhere, name).unwrap();
    }
    let pool = Pool::create(&good, 1, 2);
    drop(pool);
    assert_eq!(std::fs::read_to_string(&elsewhere).unwrap(), "kept");
}

#[test]
fn what_is_made_is_this_user_s_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path(), 2 << 17, 8 << 20);
    let pool = Pool::create(&settings, 1, 2).unwrap();
    let mut producer = pool.producer(5);
    for time in 1..100_000 {
        producer.push(&mark(time));
    }
    let mut files = 0;
    for dir in [&settings.dir, &settings.spill] {
        let home = dir.join("1-2");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&home), 0o700);
        for entry in std::fs::read_dir(home).unwrap() {
            assert_eq!(mode(&entry.unwrap().path()), 0o600);
            files += 1;
        }
    }
    assert!(files > 4, "{files}");
}
