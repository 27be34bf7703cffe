//! A rolling upgrade as an operator does it: three nodes behind HAProxy, stopped and started one after the other while
//! people write to each other all the time.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod nodes;
mod people;

use std::time::Duration;

use nodes::{Balancer, Cluster};
use people::{Talk, until};

const NODES: usize = 3;
const PEOPLE: usize = 6;

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_upgraded_one_after_the_other_and_no_message_is_lost_or_doubled() {
    let mut cluster = Cluster::start(NODES).await;
    let balancer = Balancer::start(&cluster.ports()).await;
    let talk = Talk::start(&balancer.url(), PEOPLE).await;
    for node in 0..NODES {
        let (sent, ended) = (talk.sent(), talk.ended());
        cluster.stop(node).await;
        // Its process has ended: who is connected is connected to another.
        until("everybody is connected", || talk.all_are_connected()).await;
        assert!(talk.ended() > ended, "nobody was on node {node}");
        assert!(talk.sent() > sent, "the talk has stopped");
        cluster.start_again(node).await;
        until("the balancer uses the node again", || balancer.servers_up() == NODES).await;
    }
    // Long enough that what came late would have come.
    tokio::time::sleep(Duration::from_secs(1)).await;
    talk.ends_with_everything_read_once_and_in_order().await;
}
