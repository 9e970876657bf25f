//! What is refused, what may be tried again, and what each level waits for: start `vecino node` in this folder, then run this.

use std::error::Error;
use std::time::Duration;

use vecino_client::{Client, ClientError, ErrorCode, Level, Metric, Outcome, Payload, point};

/// What the example does; the tests of vecino run it too.
pub async fn run(client: &Client) -> Result<(), Box<dyn Error>> {
    let films = client.collection("errors-and-levels");
    films.create(2, Metric::Cosine).if_absent().await?;

    // A wrong point makes the whole put an error, which says what became of each.
    let points = [point(1, [0.5, 0.5], Payload::new()), point(2, [0.5, 0.5, 0.5], Payload::new())];
    match films.put(points.clone()).await {
        Err(ClientError::NotWritten(report)) => {
            for (id, outcome) in report.iter() {
                println!("point {id}: {outcome:?}");
            }
        }
        other => {
            return Err(format!("the second point has the wrong dimension, and this was the answer: {other:?}").into());
        }
    }
    // The same without an error: the outcome of each.
    let report = films.put(points).each().await?;
    let written = report.outcomes().iter().filter(|outcome| matches!(outcome, Outcome::Written(_))).count();
    println!("{written} of 2 written");

    // Levels: one replica is fast, a majority is the default and never loses what was acknowledged, all is all.
    for level in [Level::One, Level::Quorum, Level::All] {
        put_patiently(client, level).await?;
        let found = films.get_one(3).level(level).await?;
        println!("level {level}: version {}", found.ok_or("it was put and is gone")?.version);
    }

    // What does not exist is told apart from what does not answer.
    let error = client.collection("no-such-collection").describe().await.expect_err("it does not exist");
    assert_eq!(error.code(), Some(ErrorCode::NotFound));
    println!("{error} (worth trying again: {})", error.is_safe_to_retry());
    films.drop_collection().await?;
    Ok(())
}

/// The client itself tries again while its timeout lasts. A program that is more patient asks the error whether it may.
async fn put_patiently(client: &Client, level: Level) -> Result<(), ClientError> {
    let films = client.with_timeout(Duration::from_secs(5)).collection("errors-and-levels");
    for attempt in 1.. {
        match films.put([point(3, [0.1, 0.9], Payload::new())]).level(level).await {
            Ok(_) => return Ok(()),
            // Nothing happened; or it may have, and a put of the same point does no harm.
            Err(error) if attempt < 3 && (error.is_safe_to_retry() || error.is_unknown()) => {
                println!("attempt {attempt}: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    run(&common::client().await?).await
}

#[path = "common/client.rs"]
mod common;
