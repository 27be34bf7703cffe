//! The two calls that a UnifiedPush connector makes of an app, and what they do: `new_endpoint` when there is a place
//! to be woken at, `message` when something came there. Each opens the profile, does its work and closes it again, as
//! a background handler must.
//!
//! ```sh
//! woken_by_push FOLDER endpoint https://ntfy.example/upAbc   # the profile in FOLDER is registered
//! woken_by_push FOLDER message < body-of-the-push
//! ```

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use tuckseal_client::{Client, Settings, WakeEnd};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// What the platform leaves a background handler: 30 s on iOS, less where nobody says.
const DEADLINE: Duration = Duration::from_secs(25);

/// Call it at every start as well: it costs one request, and the server may have forgotten.
pub(crate) async fn new_endpoint(folder: &Path, endpoint: &str) -> Outcome<()> {
    let client = Client::open(folder, Settings::default()).await?;
    Ok(client.register_web_push(endpoint).await?)
}

/// What came, for a notification. Whoever knows the endpoint can send something there: that costs no connection.
pub(crate) async fn message(folder: &Path, body: &[u8]) -> Outcome<Vec<String>> {
    let client = Client::open(folder, Settings::default()).await?;
    if !client.is_wake_up(body).await? {
        return Ok(Vec::new());
    }
    let woken = client.wake(DEADLINE).await?;
    if woken.end != WakeEnd::Emptied {
        eprintln!("more may wait: {:?}", woken.end);
    }
    let mut texts = Vec::new();
    for message in woken.messages {
        texts.push(message.text); // store it, then
        client.acknowledge(message.id).await?;
    }
    Ok(texts)
}

#[tokio::main]
#[allow(dead_code, reason = "a test plays the calls without it")]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [folder, "endpoint", url] => new_endpoint(Path::new(folder), url).await,
        [folder, "message"] => {
            let mut body = Vec::new();
            std::io::stdin().read_to_end(&mut body)?;
            for text in message(Path::new(folder), &body).await? {
                println!("{text}");
            }
            Ok(())
        }
        _ => Err("woken_by_push FOLDER (endpoint URL | message)".into()),
    }
}
