//! TLS: requests over it, and files that cannot be used. `tls/` has a certificate for `localhost` until 2120, whose key is public.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jetmoe_serve::config::{Config, Tls};
use jetmoe_serve::{Error, Server};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::server::{artifact, model};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openai/tls").join(name)
}

fn config(certificate: PathBuf, key: PathBuf) -> Config {
    let mut mini = model(&artifact());
    mini.preload = false;
    Config {
        listen: ([127, 0, 0, 1], 0).into(),
        tls: Some(Tls { certificate, key }),
        models: [("mini".to_owned(), mini)].into(),
        ..Config::default()
    }
}

#[tokio::test]
async fn requests_are_answered_over_tls() {
    let server = Server::bind(config(file("certificate.pem"), file("key.pem"))).await.unwrap();
    let (address, shutdown) = (server.local_addr(), server.shutdown().clone());
    let running = tokio::spawn(server.run());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("certificate.pem")).unwrap()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    // plain HTTP on the same port is no handshake
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut reply = Vec::new();
    let _end = plain.read_to_end(&mut reply).await;
    assert!(!reply.starts_with(b"HTTP/"), "{reply:?}");
    shutdown.drain();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    for (certificate, key, expected) in [
        ("missing.pem", "key.pem", "tls.certificate"),
        ("certificate.pem", "missing.pem", "tls.key"),
        ("certificate.pem", "certificate.pem", "tls.key"),
    ] {
        match Server::bind(config(file(certificate), file(key))).await {
            Err(Error::Tls { file, .. }) => assert_eq!(file, expected),
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("{certificate} and {key} are used"),
        }
    }
}
