//! The shim program (docs/spec/shim.md): one JSON object a line in, one a line out, until the input ends.
//! What the lines mean is the library's business.

use std::io::{self, BufWriter};
use std::process::ExitCode;

fn main() -> ExitCode {
    let answers = BufWriter::new(io::stdout().lock());
    match tuckseal_interop::serve(io::stdin().lock(), answers) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shim: stdin or stdout failed: {error}");
            ExitCode::FAILURE
        }
    }
}
