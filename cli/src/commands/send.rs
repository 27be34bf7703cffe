//! `tuckseal send NAME TEXT…`: kept on disk first, then sent; files and a place with it, if they are named.

use super::{Error, files, open, wait_sent};
use std::path::{Path, PathBuf};
use tuckseal::content::{Data, Location};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Whom
    name: String,
    /// What; several words need no quotes
    #[arg(required_unless_present_any = ["location", "file"])]
    text: Vec<String>,
    /// A file; what broke off goes on where it was when you send it again
    #[arg(long, value_name = "PATH")]
    file: Vec<PathBuf>,
    /// A place, in degrees, north and east positive
    #[arg(long, value_name = "LAT,LON", allow_hyphen_values = true)]
    location: Option<String>,
    /// To how many metres the place is told; what is finer does not leave this machine
    #[arg(long, value_name = "METRES", default_value_t = 100, requires = "location")]
    precision: u32,
    /// How long to wait for the server, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    wait: u64,
}

pub(crate) async fn run(folder: &Path, options: Options) -> Result<(), Error> {
    let place = options.location.as_deref().map(|text| place(text, options.precision));
    let location = place.transpose()?;
    let client = open(folder).await?;
    let to = client.lookup(&options.name).await?;
    let mut attachments = Vec::new();
    for path in &options.file {
        attachments.push(files::upload(&client, path).await?);
    }
    let data = Data { text: options.text.join(" "), attachments, location, ..Data::default() };
    let sent = client.send_data(to, data).await?;
    wait_sent(&client, sent, options.wait).await
}

fn place(text: &str, precision: u32) -> Result<Location, Error> {
    let (latitude, longitude) = text.split_once(',').ok_or(Error::Place)?;
    Ok(Location::new(degrees(latitude)?, degrees(longitude)?, precision)?)
}

/// Degrees times 10^7.
fn degrees(text: &str) -> Result<i32, Error> {
    let degrees: f64 = text.trim().parse().map_err(|_| Error::Place)?;
    let units = (degrees * 1e7).round();
    if units.abs() <= f64::from(i32::MAX) { Ok(units as i32) } else { Err(Error::Place) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_two_numbers_in_degrees() {
        assert!(place("52.52,13.405", 100).is_ok());
        assert!(place("-33.9, -70.6", 1).is_ok());
        for wrong in ["", "52", "52;13", "91,0", "0,181", "NaN,0", "1e9,0", "a,b"] {
            assert!(place(wrong, 100).is_err(), "{wrong}");
        }
        assert!(place("52,13", 0).is_err());
    }
}
