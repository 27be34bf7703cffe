//! `tuckseal serve`: the program `tuckseal-server` under this name.

use super::Error;

pub(crate) async fn run(settings: tuckseal_server::Arguments) -> Result<(), Error> {
    let config = tuckseal_server::Config::load(settings)?;
    tuckseal_server::start_log(&config)?;
    Ok(tuckseal_server::serve(config).await?)
}
