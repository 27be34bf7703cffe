//! The examples print what stands in `examples/*.out`: they are the manual, so they must be true.
//! `TUCKSEAL_REGENERATE=1 cargo test --test examples` writes the outputs anew.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::Path;
use std::process::Command;

#[test]
fn every_example_prints_its_recorded_output() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut names: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .collect();
    names.sort();
    assert!(!names.is_empty());
    for example in names {
        let name = example.file_stem().unwrap().to_str().unwrap();
        let run = Command::new(env!("CARGO"))
            .args(["run", "--quiet", "--package", "tuckseal", "--example", name])
            .output()
            .expect("cargo runs");
        assert!(run.status.success(), "{name}: {}", String::from_utf8_lossy(&run.stderr));
        let printed = String::from_utf8(run.stdout).unwrap();
        let recorded = example.with_extension("out");
        if std::env::var_os("TUCKSEAL_REGENERATE").is_some() {
            std::fs::write(&recorded, &printed).unwrap();
        }
        let expected = std::fs::read_to_string(&recorded).unwrap_or_default();
        assert_eq!(printed, expected, "{name} prints something else than {}", recorded.display());
    }
}
