//! Framing (shim.md, "Framing"): lines in, lines out, none longer than [`MAX_LINE`].

use crate::ops::Shim;
use std::io::{self, BufRead, Read, Write};

/// Bytes of the longest line that is read; a longer one is skipped and answered `bad_request`.
const MAX_LINE: u64 = 64 * 1024 * 1024;

/// Answers every line of `requests` with one line, in order, until the input ends.
///
/// # Errors
/// Only those of the two streams. No request is one.
pub fn serve(mut requests: impl BufRead, mut answers: impl Write) -> io::Result<()> {
    let mut shim = Shim::default();
    let mut line = Vec::new();
    while let Some(whole) = read_line(&mut requests, &mut line)? {
        let answer = match whole {
            Line::Whole => shim.answer(&line),
            Line::TooLong => Shim::answer_too_long(MAX_LINE),
        };
        writeln!(answers, "{answer}")?;
        answers.flush()?;
    }
    Ok(())
}

enum Line {
    Whole,
    TooLong,
}

/// Reads one line without its end, or `None` at the end of the input.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<Line>> {
    line.clear();
    let read = input.by_ref().take(MAX_LINE + 1).read_until(b'\n', line)?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() as u64 > MAX_LINE {
        input.skip_until(b'\n')?;
        return Ok(Some(Line::TooLong));
    }
    Ok(Some(Line::Whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_over_the_limit_is_refused_and_the_next_is_read() {
        let long = vec![b' '; MAX_LINE as usize + 2];
        let input = [&long[..], b"\n{\"id\":1,\"op\":\"hello\"}"].concat();
        let mut output = Vec::new();
        serve(&input[..], &mut output).unwrap();
        let lines: Vec<serde_json::Value> = output
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["err"]["kind"], "bad_request");
        assert_eq!(lines[1]["ok"]["name"], "tuckseal");
    }
}
