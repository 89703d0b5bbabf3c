//! What fuzzing has found worth keeping, replayed without a fuzzer: see `fuzz/`.

#[path = "../fuzz/src/database.rs"]
mod database;
#[path = "../fuzz/src/drain.rs"]
mod drain;
#[path = "../fuzz/src/import.rs"]
mod import;
#[path = "../fuzz/src/journal.rs"]
mod journal;
#[path = "../fuzz/src/message.rs"]
mod message;
#[path = "../fuzz/src/reader.rs"]
mod reader;
#[path = "../fuzz/src/script.rs"]
mod script;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut inputs = 0;
    for entry in std::fs::read_dir(folder.join(target)).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display()); // shown if it fails
        run(&std::fs::read(path).unwrap());
        inputs += 1;
    }
    assert!(inputs > 0);
}

#[test]
fn the_reader_s_corpus_passes() {
    replay("reader", reader::run);
}

#[test]
fn the_journal_s_corpus_passes() {
    replay("journal", journal::run);
}

#[test]
fn the_drain_s_corpus_passes() {
    replay("drain", drain::run);
}

#[test]
fn the_corpora_of_others_files_pass() {
    replay("json", import::run);
    replay("sqlite", database::run);
    replay("protobuf", message::run);
}
