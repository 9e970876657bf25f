//! Whether a file fits a collection, before anything of it is sent.

use std::path::Path;

use vecino_client::{CollectionInfo, Fields, Point, RawPoint};

use crate::cli::failure::Failure;
use crate::files::VectorFile;
use vecino_model::validate;

/// Reads the file through, at most `limit` rows, and checks each as the mesh would check it. How many rows there are; `None`
/// once `go_on`, which is asked before each row, says no.
pub(super) fn check_file(
    path: &Path,
    limit: u64,
    info: &CollectionInfo,
    go_on: impl Fn() -> bool,
) -> Result<Option<u64>, Failure> {
    let mut rows = 0;
    for row in VectorFile::open(path)?.take(usize::try_from(limit).unwrap_or(usize::MAX)) {
        if !go_on() {
            return Ok(None);
        }
        let row = row?;
        check_fields(info, dims(&row.vectors))?;
        // Whether the row's number makes an id is seen when it is loaded.
        let id = row.point_id(0).unwrap_or_else(|| row.number.into());
        let point = RawPoint::from(Point { id, vectors: row.vectors, payload: row.payload });
        validate::point(&info.schema, &point).map_err(|reason| {
            let place = format!("{}: row {} (counted from 0), point {:?}", path.display(), row.number, point.id);
            Failure::new("invalid", format!("{place}: {reason}; nothing was sent"))
        })?;
        rows += 1;
    }
    Ok(Some(rows))
}

/// Dimension of each vector.
pub(super) fn dims(fields: &Fields) -> impl Iterator<Item = (&str, usize)> {
    fields.iter().map(|(field, vector)| (field.as_str(), vector.0.len()))
}

/// Compares what a file has with what the collection wants.
pub(super) fn check_fields<'a>(
    info: &CollectionInfo,
    dims: impl Iterator<Item = (&'a str, usize)>,
) -> Result<(), Failure> {
    let CollectionInfo { name, schema, .. } = info;
    let mut found = 0;
    for (field, dim) in dims {
        found += 1;
        let Some(expected) = schema.fields.get(field) else {
            let known: Vec<String> = schema.fields.keys().map(|field| format!("{field:?}")).collect();
            let message =
                format!("the file has the vector field {field:?}, collection {name:?} has {}", known.join(", "));
            return Err(Failure::new("invalid", message));
        };
        if expected.dim as usize != dim {
            let of_field = if field.is_empty() { String::new() } else { format!(" of field {field:?}") };
            let message = format!(
                "the file's vectors{of_field} have dimension {dim}, collection {name:?} takes {}",
                expected.dim
            );
            return Err(Failure::new("invalid", message));
        }
    }
    if found < schema.fields.len() {
        let message = format!("the file has {found} vector fields, collection {name:?} has {}", schema.fields.len());
        return Err(Failure::new("invalid", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use vecino_client::{CollectionId, Metric, schema};

    use super::*;

    #[test]
    fn checking_reads_to_the_limit_and_no_further() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        std::fs::write(&path, "{\"vector\":[1,2]}\n{\"vector\":[3,4]}\n{\"vector\":[5]}\n").unwrap();
        let (name, id, schema) = ("films".to_owned(), CollectionId([0; 16]), schema(2, Metric::Dot));
        let info = CollectionInfo::new(name, id, schema, Default::default());
        assert_eq!(check_file(&path, 2, &info, || true), Ok(Some(2)));
        assert!(check_file(&path, 3, &info, || true).unwrap_err().render(false).contains("line 3"));
        let asked = std::cell::Cell::new(0);
        let once = || asked.replace(asked.get() + 1) == 0;
        assert_eq!(check_file(&path, 3, &info, once), Ok(None));
    }
}
