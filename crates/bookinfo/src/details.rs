//! details: the facts about a book.

use hyper::StatusCode;
use serde_json::json;

use crate::reply::{Handler, Reply, Request, json, not_found, product_id};

/// The service; every book has the same facts.
#[derive(Debug)]
pub(crate) struct Details;

impl Handler for Details {
    async fn handle(&self, request: Request) -> Reply {
        match *request.path() {
            ["health"] => json(StatusCode::OK, &json!({ "status": "Details is healthy" })),
            ["details", id] => match product_id(id) {
                Ok(id) => json(StatusCode::OK, &book(id)),
                Err(refusal) => *refusal,
            },
            _ => not_found(),
        }
    }
}

fn book(id: u64) -> serde_json::Value {
    json!({
        "id": id,
        "author": "William Shakespeare",
        "year": 1595,
        "type": "paperback",
        "pages": 200,
        "publisher": "PublisherA",
        "language": "English",
        "ISBN-10": "1234567890",
        "ISBN-13": "123-1234567890",
    })
}
