//! A collection, a few points, a search: start `vecino node` in this folder, then run this.

use std::error::Error;

use vecino_client::{Client, Metric, payload, point};

/// What the example does; the tests of vecino run it too.
pub async fn run(client: &Client) -> Result<(), Box<dyn Error>> {
    let films = client.collection("quick-start");
    films.create(3, Metric::Cosine).if_absent().await?;

    // An error unless every point was written.
    films
        .put([
            point(100, [0.1, 0.2, 0.3], payload! { "title": "Río", "year": 1991 }),
            point("solaris", [0.3, 0.2, 0.1], payload! { "title": "Solaris", "year": 1972 }),
            point("stalker", [0.3, 0.1, 0.1], payload! { "title": "Stalker", "tags": ["slow", "zone"] }),
        ])
        .await?;

    let found = films.search([0.3, 0.2, 0.2]).k(2).await?;
    for hit in &found.hits {
        println!("{}: {:.3} {:?}", hit.id, hit.score, hit.payload);
    }
    let like = films.search_like("solaris").k(1).await?;
    println!("most like solaris: {}", like.hits[0].id);

    let film = films.get_one("solaris").await?.ok_or("solaris was put and is gone")?;
    println!("solaris has the vector {:?}", film.vectors[""].0);

    films.delete(["solaris"]).await?;
    println!("solaris is {}", if films.get_one("solaris").await?.is_some() { "there" } else { "gone" });
    films.drop_collection().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    run(&common::client().await?).await
}

#[path = "common/client.rs"]
mod common;
