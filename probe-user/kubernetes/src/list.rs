//! Lists, parsed while they arrive.
//!
//! A list of 5 000 nodes is 75 MB of JSON. It is never in memory as a whole: each object is dropped when its relevant
//! fields have been copied.
//!
//! Lists are requested at `resourceVersion=0`: the API server responds from its cache without reading etcd and without
//! paging. The list may be slightly old; a watch from its version brings the rest.

use std::{
    cell::Cell,
    fmt,
    io::{self, BufReader, Read},
    rc::Rc,
};

use probe_cluster::object;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::{
    ApiConnection, ApiRequestError,
    health::ApiRequestKind,
    request::{ResponseCompression, chunks, error_text},
};

/// The largest object, and the largest text between two objects: etcd stores objects of up to 1.5 MiB.
const MAX_OBJECT_BYTES: usize = 8 << 20;

/// The read buffer of the parser.
const BUFFER: usize = 64 << 10;

/// The kind of error for a larger object.
const TOO_LARGE: io::ErrorKind = io::ErrorKind::FileTooLarge;

/// The largest number of objects.
const MAX_OBJECTS: usize = 500_000;

/// A list.
#[derive(Debug)]
pub struct ListResponse<S> {
    /// The state collected from its objects.
    pub state: S,
    /// The version to watch from.
    pub version: String,
}

impl ApiConnection {
    /// Lists the objects at a path, and passes each to `take`.
    pub(super) async fn list<S: Send + 'static>(
        &self,
        request: ApiRequestKind,
        path: &str,
        state: S,
        take: fn(&mut S, Value),
    ) -> Result<ListResponse<S>, ApiRequestError> {
        let body = self
            .get(request, path, ResponseCompression::Allowed)
            .await?;
        let reader = SyncIoBridge::new(StreamReader::new(chunks(body, None)));
        let parsed = tokio::task::spawn_blocking(move || parse(reader, state, take)).await;
        let parsed = parsed
            .unwrap_or_else(|error| Err(ApiRequestError::InvalidResponse(error_text(&error))));
        if let Err(error) = &parsed {
            self.count(request, Some(error));
        }
        parsed
    }
}

/// Parses a list.
fn parse<S>(
    reader: impl Read,
    state: S,
    take: fn(&mut S, Value),
) -> Result<ListResponse<S>, ApiRequestError> {
    let used = Rc::new(Cell::new(0));
    let reader = BufReader::with_capacity(
        BUFFER,
        BoundedReader {
            inner: reader,
            used: used.clone(),
        },
    );
    let mut list = ListVisitor {
        state,
        take,
        used,
        objects: 0,
        version: None,
    };
    let mut text = serde_json::Deserializer::from_reader(reader);
    let parsed = ListSeed(&mut list).deserialize(&mut text);
    match parsed.and_then(|()| text.end()) {
        Ok(()) => Ok(ListResponse {
            state: list.state,
            version: list.version.ok_or_else(|| {
                ApiRequestError::InvalidResponse("a list without resourceVersion".to_owned())
            })?,
        }),
        Err(error) if error.io_error_kind().is_some_and(|kind| kind != TOO_LARGE) => {
            Err(ApiRequestError::Unreachable(error_text(&error)))
        }
        Err(error) => Err(ApiRequestError::InvalidResponse(error_text(&error))),
    }
}

/// A reader that fails on an object that is too large.
struct BoundedReader<R> {
    inner: R,
    used: Rc<Cell<usize>>,
}

impl<R: Read> Read for BoundedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.used.get() > MAX_OBJECT_BYTES {
            let error = "an object of the list is too large";
            return Err(io::Error::new(TOO_LARGE, error));
        }
        let read = self.inner.read(buffer)?;
        self.used.set(self.used.get() + read);
        Ok(read)
    }
}

struct ListVisitor<S> {
    state: S,
    take: fn(&mut S, Value),
    used: Rc<Cell<usize>>,
    objects: usize,
    version: Option<String>,
}

/// The whole list.
struct ListSeed<'a, S>(&'a mut ListVisitor<S>);

impl<'de, S> DeserializeSeed<'de> for ListSeed<'_, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, S> Visitor<'de> for ListSeed<'_, S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "metadata" => {
                    let list = json!({"metadata": map.next_value::<Value>()?});
                    self.0.version = object::version(&list).map(str::to_owned);
                }
                "items" => map.next_value_seed(ItemsSeed(self.0))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

struct ItemsSeed<'a, S>(&'a mut ListVisitor<S>);

impl<'de, S> DeserializeSeed<'de> for ItemsSeed<'_, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        // Some servers send `null` for an empty list.
        deserializer.deserialize_any(self)
    }
}

impl<'de, S> Visitor<'de> for ItemsSeed<'_, S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("objects")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while let Some(object) = items.next_element::<Value>()? {
            self.0.used.set(0);
            self.0.objects += 1;
            if self.0.objects > MAX_OBJECTS {
                return Err(serde::de::Error::custom("the list has too many objects"));
            }
            (self.0.take)(&mut self.0.state, object);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn names(text: &str) -> Result<(Vec<String>, String), ApiRequestError> {
        let take = |names: &mut Vec<String>, object: Value| names.push(object.to_string());
        parse(Cursor::new(text.to_owned()), Vec::new(), take)
            .map(|listed| (listed.state, listed.version))
    }

    #[test]
    fn list_is_parsed_object_by_object() {
        let text = r#"{"kind":"List","metadata":{"resourceVersion":"7"},"items":[{"a":1},2]}"#;
        let objects = vec![r#"{"a":1}"#.to_owned(), "2".to_owned()];
        assert_eq!(names(text), Ok((objects, "7".to_owned())));
        let text = r#"{"items":null,"metadata":{"resourceVersion":"8"}}"#;
        assert_eq!(names(text), Ok((Vec::new(), "8".to_owned())));
    }

    #[test]
    fn invalid_lists_are_invalid_responses() {
        for text in [
            "",
            "nonsense",
            "[]",
            "{\"items\":",
            r#"{"items":[{}]}"#,
            r#"{"metadata":{"resourceVersion":7},"items":[]}"#,
            r#"{"metadata":{"resourceVersion":"7"},"items":{}}"#,
            r#"{"metadata":{"resourceVersion":"7"},"items":[]} more"#,
        ] {
            assert!(
                matches!(names(text), Err(ApiRequestError::InvalidResponse(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn an_object_without_end_is_an_error() {
        let text = format!(r#"{{"items":["{}"#, "x".repeat(MAX_OBJECT_BYTES * 2));
        let error = names(&text).unwrap_err();
        assert!(
            matches!(error, ApiRequestError::InvalidResponse(_)),
            "{error}"
        );
        // Many objects of usual size are not.
        let object = format!(r#""{}","#, "x".repeat(MAX_OBJECT_BYTES / 4));
        let text = format!(
            r#"{{"items":[{}""],"metadata":{{"resourceVersion":"1"}}}}"#,
            object.repeat(8)
        );
        assert_eq!(names(&text).unwrap().0.len(), 9);
    }
}
