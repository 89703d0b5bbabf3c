//! Text, line by line, through a window of the file.

use memchr::memchr;

use super::blocks::Blocks;
use super::json::Window;
use crate::error::Result;

/// What is next in a file of lines.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A line without its end (`\n` or `\r\n`).
    Whole(&'a [u8]),
    /// The last one, and it has no end: as far as anybody knows the file was cut off within it.
    Cut,
    End,
}

/// See the module.
#[derive(Debug)]
pub struct Lines {
    window: Window,
    /// Of the line handed out last, from 1.
    number: u64,
    /// Bytes of that line, which are still in the window.
    used: usize,
}

impl Lines {
    pub fn new(window: Window) -> Lines {
        Lines {
            window,
            number: 0,
            used: 0,
        }
    }

    /// The next line.
    ///
    /// # Errors
    /// A line of more than 64 MiB; a file that cannot be read or unpacked.
    pub fn next_line(&mut self) -> Result<Line<'_>> {
        self.window.take(std::mem::take(&mut self.used));
        self.number += 1;
        let mut searched = 0;
        let length = loop {
            let left = self.window.left();
            let bytes = self.window.cursor().slice(searched, left);
            if let Some(at) = memchr(b'\n', bytes) {
                break searched + at;
            }
            if self.window.ended() {
                self.used = left;
                return Ok(if left == 0 { Line::End } else { Line::Cut });
            }
            searched = left;
            self.window.more()?;
        };
        self.used = length + 1;
        let line = self.window.cursor().slice(0, length);
        Ok(Line::Whole(line.strip_suffix(b"\r").unwrap_or(line)))
    }

    /// Number of the line handed out last, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What is wrong in this line.
    pub fn wrong(&self, number: u64, what: &str) -> crate::error::Error {
        self.window.wrong_in(format!("in line {number}"), what)
    }

    /// The file ends in the midst of something.
    pub fn cut(&self) -> crate::error::Error {
        self.window.cut_in(format!("in line {}", self.number))
    }

    pub fn blocks(&mut self) -> &mut Blocks {
        self.window.blocks()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;

    use super::*;

    fn lines(content: &[u8]) -> Lines {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        let blocks = Blocks::start(vec![], file).unwrap();
        Lines::new(Window::new(blocks, Path::new("x")))
    }

    #[test]
    fn lines_come_whole_across_blocks_and_a_last_one_without_its_end_is_cut() {
        let long = vec![b'x'; 3 << 20];
        let mut lines = lines(&[b"a\r\n\n", &long[..], b"\ncut"].concat());
        assert_eq!(lines.next_line().unwrap(), Line::Whole(b"a"));
        assert_eq!(lines.next_line().unwrap(), Line::Whole(b""));
        assert_eq!(lines.next_line().unwrap(), Line::Whole(&long));
        assert_eq!(lines.next_line().unwrap(), Line::Cut);
        assert_eq!(lines.number(), 4);
        assert_eq!(lines.next_line().unwrap(), Line::End);
    }
}
