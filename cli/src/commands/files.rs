//! Files on the way out and in, each with a bar while it takes.

use super::{Error, printable};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::Path;
use tuckseal::content::AttachmentPointer;
use tuckseal_client::{Client, Message, ServerError, TransferError};

pub(crate) async fn upload(client: &Client, path: &Path) -> Result<AttachmentPointer, Error> {
    let bar = bar(&path.display().to_string());
    let show = |done, whole| step(&bar, done, whole);
    let sent = client.upload(path, "application/octet-stream", show).await;
    bar.finish_and_clear();
    Ok(sent?)
}

/// What became of the files of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fetched {
    All,
    /// Not now: the message is to be kept.
    Later,
}

/// Fetches the files of a message into the folder `files` of the profile, and says so.
pub(crate) async fn fetch(
    client: &Client,
    folder: &Path,
    message: &Message,
) -> Result<Fetched, Error> {
    let files = folder.join("files");
    for (number, file) in message.attachments.iter().enumerate() {
        std::fs::create_dir_all(&files).map_err(Error::Terminal)?;
        let name = format!("{}-{number}-{}", message.id.0, harmless(&file.file_name));
        let path = files.join(name);
        if path.exists() {
            continue;
        }
        let bar = bar(&printable(&file.file_name));
        let fetched = client.download(file, &path, |done, whole| step(&bar, done, whole)).await;
        bar.finish_and_clear();
        match fetched {
            Ok(()) => print_line!("  a file of {} bytes is in {}", file.size, shown(&path)),
            Err(
                error @ (TransferError::Server(ServerError::NotFound)
                | TransferError::Attachment(_)),
            ) => eprintln!("  (a file is lost: {error})"),
            Err(error) => {
                eprintln!("  (a file did not come, it is tried again next time: {error})");
                return Ok(Fetched::Later);
            }
        }
    }
    Ok(Fetched::All)
}

fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}

fn bar(name: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("  {msg} {bar:30} {bytes}/{total_bytes} {eta}");
    let bar = ProgressBar::new(0).with_message(name.to_owned());
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn step(bar: &ProgressBar, done: u64, whole: u64) {
    bar.set_length(whole);
    bar.set_position(done);
}

/// A stranger's name for a file, as the end of one of ours: no way to another folder, and no long one.
fn harmless(name: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    let mut name: String = name.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    while name.len() > 100 {
        name.pop();
    }
    name
}

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn a_strangers_file_name_leads_nowhere() {
        assert_eq!(harmless("../../.ssh/id"), ".._.._.ssh_id");
        assert_eq!(harmless("film \u{1b}[2J.mp4"), "film__[2J.mp4".replace('[', "_"));
        assert!(harmless(&"ä".repeat(500)).len() <= 100);
    }
}
