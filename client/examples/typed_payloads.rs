//! Structs as payloads, and back: start `vecino node` in this folder, then run this.

use std::error::Error;

use serde::{Deserialize, Serialize};
use vecino_client::{Client, Metric, payload, payload_of, point};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Film {
    title: String,
    year: u16,
    #[serde(default)]
    tags: Vec<String>,
    rating: Option<f32>,
}

/// What the example does; the tests of vecino run it too.
pub async fn run(client: &Client) -> Result<(), Box<dyn Error>> {
    let films = client.collection("typed-payloads");
    films.create(2, Metric::Dot).if_absent().await?;

    let solaris = Film { title: "Solaris".into(), year: 1972, tags: vec!["sea".into()], rating: Some(8.0) };
    films.put([point("solaris", [0.3, 0.2], payload_of(&solaris)?)]).await?;
    // A payload by hand fits as long as its fields do.
    films.put([point("rio", [0.1, 0.2], payload! { "title": "Río", "year": 1991, "rating": None::<f64> })]).await?;

    let stored = films.get_one("solaris").await?.ok_or("solaris was put and is gone")?;
    assert_eq!(stored.payload_as::<Film>()?, solaris);
    for hit in films.search([1.0, 1.0]).await?.hits {
        let film: Film = hit.payload_as()?;
        println!("{:.2} {} ({})", hit.score, film.title, film.year);
    }

    // What does not fit says which field.
    films.put([point("untitled", [0.2, 0.2], payload! { "year": 2001 })]).await?;
    let untitled = films.get_one("untitled").await?.ok_or("it was put and is gone")?;
    println!("{}", untitled.payload_as::<Film>().expect_err("it has no title"));
    films.drop_collection().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    run(&common::client().await?).await
}

#[path = "common/client.rs"]
mod common;
