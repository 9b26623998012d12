//! Data sets on a disk and in an object store.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use shoal_judge::{Dataset, JudgeError, dataset};
use wire::Hash;

use super::bench::inputs;

#[tokio::test]
async fn what_is_written_comes_back_checked() {
    let folder = tempfile::tempdir().unwrap();
    let made: Vec<_> = inputs(3).into_iter().map(|input| (input, None)).collect();
    let manifest = dataset::write(folder.path(), &made).unwrap();
    let set = Dataset::folder(folder.path()).await.unwrap();
    assert_eq!(set.manifest(), &manifest);
    let read = set.inputs().await.unwrap();
    assert_eq!(read, made.iter().map(|(input, _)| input.clone()).collect::<Vec<_>>());
    let found = Dataset::find(&[set], &[read[2].hash, read[0].hash]).await.unwrap();
    assert_eq!((found[0].hash, found[1].hash), (read[2].hash, read[0].hash));
    // Never over another.
    assert!(matches!(dataset::write(folder.path(), &made), Err(JudgeError::Dataset { .. })));
}

#[tokio::test]
async fn changed_missing_and_broken_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let made: Vec<_> = inputs(3).into_iter().map(|input| (input, None)).collect();
    dataset::write(folder.path(), &made).unwrap();
    let path = |index: usize| folder.path().join(&made[index].0.name);
    let mut bytes = std::fs::read(path(0)).unwrap();
    bytes[100] ^= 1;
    std::fs::write(path(0), &bytes).unwrap();
    std::fs::remove_file(path(1)).unwrap();
    std::fs::write(path(2), [0, 0, 0x80, 0x7f]).unwrap();
    let set = Dataset::folder(folder.path()).await.unwrap();
    let items = &set.manifest().items;
    assert!(matches!(set.input(&items[0]).await, Err(JudgeError::Mismatch { .. })));
    let error = set.input(&items[1]).await.unwrap_err().to_string();
    assert!(error.ends_with("synthetic-0001: not there"), "{error}");
    let error = set.input(&items[2]).await.unwrap_err().to_string();
    let expected = format!("says {} bytes, the file has 4", items[2].bytes.unwrap());
    assert!(error.contains(&expected), "{error}");
    // Neither length nor hash in the manifest: the shape is still held against the file.
    let bare = dataset::Item { hash: None, bytes: None, ..items[2].clone() };
    let error = set.input(&bare).await.unwrap_err().to_string();
    assert!(error.contains("takes"), "{error}");
    assert_eq!(set.bytes(&bare).await.unwrap(), [0, 0, 0x80, 0x7f]);
    let unknown = Hash::of(b"unknown");
    assert!(
        matches!(Dataset::find(&[set], &[unknown]).await, Err(JudgeError::MissingInput(hash)) if hash == unknown)
    );
}

#[tokio::test]
async fn a_prefix_of_an_object_store_is_a_data_set() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let input = inputs(1).remove(0);
    store.put(&Path::from("some/where/manifest.csv"), b"a/one.bin\n".to_vec().into()).await.unwrap();
    store.put(&Path::from("some/where/a/one.bin"), input.bytes.to_vec().into()).await.unwrap();
    let set = Dataset::open(Arc::clone(&store), "some/where").await.unwrap();
    let read = set.inputs().await.unwrap();
    assert_eq!((&read[0].bytes, read[0].hash), (&input.bytes, Hash::of(&input.bytes)));
    let error = Dataset::open(store, "elsewhere").await.unwrap_err().to_string();
    assert!(error.ends_with("manifest.csv: not there"), "{error}");
}

/// What a server asks for.
#[derive(Clone, Copy)]
enum Asks {
    Nothing,
    /// A request in the manner of S3, signed for a bucket's owner, or not signed at all where the bucket is called `public`.
    S3,
}

/// A path without its escapes: Google's clients escape the slashes within an object's name.
fn plain(path: &str) -> String {
    let mut parts = path.split('%');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at(2);
        plain.push(char::from(u8::from_str_radix(code, 16).unwrap()));
        plain.push_str(rest);
    }
    plain
}

/// A server of files below a folder on the loopback, for as long as the process lives.
fn serve(folder: PathBuf, asks: Asks) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut head = String::new();
            while stream.read_line(&mut head).is_ok_and(|bytes| bytes > 2) {}
            let path = plain(head.split(' ').nth(1).unwrap_or("/").trim_start_matches('/'));
            let signed = "authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/";
            let may = match asks {
                Asks::Nothing => true,
                Asks::S3 if path.starts_with("public/") => !head.contains("authorization:"),
                Asks::S3 => {
                    let scope = "/eu-north-1/s3/aws4_request, SignedHeaders=";
                    head.contains(signed) && head.contains(scope) && head.contains("x-amz-content-sha256: ")
                }
            };
            let (status, body) = match std::fs::read(folder.join(path)) {
                _ if !may => ("403 Forbidden", b"<Error><Code>AccessDenied</Code></Error>".to_vec()),
                Ok(body) => ("200 OK", body),
                Err(_) => ("404 Not Found", b"<Error><Code>NoSuchKey</Code></Error>".to_vec()),
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nconnection: close\r\netag: \"1\"\r\nlast-modified: Wed, 21 Oct 2026 07:28:00 GMT\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            drop(stream.get_mut().write_all(&[head.as_bytes(), &body].concat()));
        }
    });
    address
}

#[tokio::test]
async fn a_prefix_of_an_s3_bucket_is_a_data_set() {
    let folder = tempfile::tempdir().unwrap();
    let made: Vec<_> = inputs(3).into_iter().map(|input| (input, None)).collect();
    for bucket in ["arena", "public"] {
        dataset::write(&folder.path().join(bucket).join("sets/one"), &made).unwrap();
    }
    let address = serve(folder.path().to_owned(), Asks::S3);
    let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let public = vec![
        setting("AWS_ENDPOINT_URL", &format!("http://{address}")),
        setting("AWS_REGION", "eu-north-1"),
        setting("AWS_PAGER", "no setting of a store"),
        setting("HOME", "/nowhere"),
    ];
    let keys = [setting("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"), setting("AWS_SECRET_ACCESS_KEY", "secret")];
    let signed = [&public[..], &keys].concat();
    for (place, settings) in [
        ("s3://arena/sets/one", &signed),
        ("s3://arena/sets/one/", &signed),
        ("s3://public/sets/one", &public),
    ] {
        let set = Dataset::at_with(place, settings).await.unwrap();
        assert_eq!(set.place(), place.trim_end_matches('/'));
        let read = set.inputs().await.unwrap();
        assert_eq!(read, made.iter().map(|(input, _)| input.clone()).collect::<Vec<_>>());
    }
    let error = Dataset::at_with("s3://arena/sets/two", &signed).await.unwrap_err().to_string();
    assert!(error.ends_with("s3://arena/sets/two/manifest.csv: not there"), "{error}");
    // Whoever has no key hears so at once, and asks nobody else for one.
    let error = Dataset::at_with("s3://arena/sets/one", &public).await.unwrap_err().to_string();
    assert!(error.contains("AccessDenied") || error.contains("403"), "{error}");
    assert!(error.contains("AWS_SKIP_SIGNATURE=false uses the role of this machine"), "{error}");
}

#[tokio::test]
async fn a_prefix_of_a_google_bucket_is_a_data_set() {
    let folder = tempfile::tempdir().unwrap();
    let made: Vec<_> = inputs(2).into_iter().map(|input| (input, None)).collect();
    dataset::write(&folder.path().join("public/sets/one"), &made).unwrap();
    // Asked unsigned: the server refuses whoever shows a signature of S3's kind, as any other.
    let address = serve(folder.path().to_owned(), Asks::S3);
    let settings = [("GOOGLE_BASE_URL".to_owned(), format!("http://{address}"))];
    let set = Dataset::at_with("gs://public/sets/one", &settings).await.unwrap();
    assert_eq!(set.inputs().await.unwrap().len(), 2);
    let error = Dataset::at_with("gs://closed/sets/one", &settings).await.unwrap_err().to_string();
    assert!(error.contains("GOOGLE_SKIP_SIGNATURE=false"), "{error}");
}

#[tokio::test]
async fn a_prefix_of_a_server_is_a_data_set() {
    let folder = tempfile::tempdir().unwrap();
    let made: Vec<_> = inputs(2).into_iter().map(|input| (input, None)).collect();
    dataset::write(&folder.path().join("sets/one"), &made).unwrap();
    let address = serve(folder.path().to_owned(), Asks::Nothing);
    for place in [format!("http://{address}/sets/one"), format!("http://{address}/sets/one/")] {
        let set = Dataset::at(&place).await.unwrap();
        assert_eq!(set.place(), place.trim_end_matches('/'));
        let read = set.inputs().await.unwrap();
        assert_eq!(read, made.iter().map(|(input, _)| input.clone()).collect::<Vec<_>>());
    }
    let error = Dataset::at(&format!("http://{address}/sets/two")).await.unwrap_err().to_string();
    assert!(error.ends_with("sets/two/manifest.csv: not there"), "{error}");
    // The same checks as for a folder.
    std::fs::write(folder.path().join("sets/one").join(&made[1].0.name), b"other").unwrap();
    let set = Dataset::at(&format!("http://{address}/sets/one")).await.unwrap();
    assert!(set.inputs().await.is_err());
    let error = Dataset::at("ftp://nowhere/at/all").await.unwrap_err().to_string();
    assert!(error.contains("s3://"), "{error}");
}
