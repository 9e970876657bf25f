//! Every point of a collection as JSON lines, through a stream that goes on where it stopped: start `vecino node` in this
//! folder, then run this.

use std::error::Error;

use futures_util::{StreamExt, TryStreamExt};
use serde_json::json;
use vecino_client::{Client, Metric, payload, payload_to_json, point};

/// What the example does; the tests of vecino run it too.
pub async fn run(client: &Client) -> Result<(), Box<dyn Error>> {
    let letters = client.collection("scan-export");
    letters.create(2, Metric::Euclidean).if_absent().await?;
    let points = ('a'..='z')
        .zip(0_u32..)
        .map(|(letter, place)| point(letter.to_string(), [place as f32, 1.0], payload! { "place": place }));
    letters.put(points).await?;

    // A few points, and the place where the rest begins, which could be written to a file.
    let mut first = letters.scan().page_points(10).points();
    for _ in 0..10 {
        if let Some(point) = first.try_next().await? {
            let line = json!({
                "id": point.id,
                "vector": point.vectors[""].0,
                "payload": payload_to_json(&point.payload),
            });
            println!("{line}");
        }
    }
    let cursor = first.cursor().cloned();
    println!("… later on, from {cursor:?}");

    // A `Stream` as any other.
    let rest = letters.scan().after(cursor).points();
    let late = rest.try_filter(|point| std::future::ready(point.vectors[""].0[0] > 12.0)).map_ok(|point| point.id);
    let late: Vec<_> = late.take(20).try_collect().await?;
    println!("of the rest these are beyond the middle: {late:?}");
    letters.drop_collection().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    run(&common::client().await?).await
}

#[path = "common/client.rs"]
mod common;
