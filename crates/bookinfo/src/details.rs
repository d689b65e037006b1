//! details: the facts about a book, over gRPC for productpage, and over HTTP for everybody.

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::grpc::{self, BookDetails, GetDetailsRequest, Status};
use crate::reply::{Handler, Reply, Request, json, not_found, product_id};

/// The service; every book has the same facts.
#[derive(Debug)]
pub(crate) struct Details;

impl Handler for Details {
    async fn handle(&self, request: Request) -> Reply {
        if grpc::is_call(&request.headers) {
            return call(&request);
        }
        match *request.path() {
            ["health"] => json(StatusCode::OK, &json!({ "status": "Details is healthy" })),
            ["details", id] => match product_id(id) {
                Ok(id) => json(StatusCode::OK, &book(id).to_json()),
                Err(refusal) => *refusal,
            },
            _ => not_found(),
        }
    }
}

fn call(request: &Request) -> Reply {
    if request.uri.path() != grpc::GET_DETAILS {
        return grpc::failure(Status::Unimplemented);
    }
    match grpc::message::<GetDetailsRequest>(&request.body) {
        Some(GetDetailsRequest { id }) => grpc::answer(&book(id)),
        None => grpc::failure(Status::InvalidArgument),
    }
}

fn book(id: u64) -> BookDetails {
    BookDetails {
        id,
        author: "William Shakespeare".to_owned(),
        year: 1595,
        kind: "paperback".to_owned(),
        pages: 200,
        publisher: "PublisherA".to_owned(),
        language: "English".to_owned(),
        isbn_10: "1234567890".to_owned(),
        isbn_13: "123-1234567890".to_owned(),
    }
}

impl BookDetails {
    /// The same under the names that bookinfo gives them.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "author": self.author,
            "year": self.year,
            "type": self.kind,
            "pages": self.pages,
            "publisher": self.publisher,
            "language": self.language,
            "ISBN-10": self.isbn_10,
            "ISBN-13": self.isbn_13,
        })
    }
}
