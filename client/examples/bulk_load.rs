//! Many points, with progress and a summary: start `vecino node` in this folder, then run this.

use std::error::Error;
use std::time::Duration;

use vecino_client::{BulkEvent, Client, Metric, payload, point};

const POINTS: u64 = 20_000;
const DIM: usize = 32;

/// What the example does; the tests of vecino run it too.
pub async fn run(client: &Client) -> Result<(), Box<dyn Error>> {
    let numbers = client.collection("bulk-load");
    numbers.create(DIM as u32, Metric::Euclidean).if_absent().await?;

    let mut written = 0;
    let bulk = numbers.bulk().batch_points(500).in_flight(4).patience(Duration::from_secs(30));
    let mut loader = bulk
        .on_event(|event| match event {
            BulkEvent::Written { ids } => {
                let before = written;
                written += ids.len();
                if before / 5_000 < written / 5_000 {
                    println!("{written} of {POINTS} points written");
                }
            }
            BulkEvent::NotWritten { point } => println!("{point}"),
            BulkEvent::Waiting { points, reason } => println!("{points} points wait: {reason}"),
            _ => {}
        })
        .start();
    for id in 0..POINTS {
        // Reading them from a file would be slowed down to what the mesh takes.
        let vector: Vec<f32> = (0..DIM).map(|at| ((id as usize * 31 + at * 17) % 97) as f32).collect();
        loader.push(point(id, vector, payload! { "square": id * id })).await?;
    }
    let summary = loader.finish().await?;
    println!("{summary}");
    summary.all_written()?;

    let found = numbers.search(vec![50.0; DIM]).k(3).await?;
    println!("near the middle: {:?}", found.hits.iter().map(|hit| &hit.id).collect::<Vec<_>>());
    numbers.drop_collection().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    run(&common::client().await?).await
}

#[path = "common/client.rs"]
mod common;
