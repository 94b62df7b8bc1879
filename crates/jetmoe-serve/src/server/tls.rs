//! TLS, if the server is built with it.

#[cfg(feature = "tls")]
pub(super) use self::with_tls::Acceptor;
#[cfg(not(feature = "tls"))]
pub(super) use self::without_tls::Acceptor;

#[cfg(feature = "tls")]
mod with_tls {
    use std::io;
    use std::sync::Arc;

    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::net::TcpStream;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
    use tokio_rustls::server::TlsStream;

    use crate::config::Tls;
    use crate::error::Error;

    /// Accepts TLS connections.
    #[derive(Clone)]
    pub(in crate::server) struct Acceptor(TlsAcceptor);

    impl Acceptor {
        pub(in crate::server) fn new(tls: &Tls) -> Result<Self, Error> {
            let failed = |file: &'static str| move |problem: String| Error::Tls { file, problem };
            let in_certificate = failed("tls.certificate");
            let certificates = CertificateDer::pem_file_iter(&tls.certificate)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| in_certificate(error.to_string()))?;
            let in_key = failed("tls.key");
            let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| in_key(error.to_string()))?;
            let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
                .with_safe_default_protocol_versions()
                .and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates, key))
                .map_err(|error| in_certificate(error.to_string()))?;
            Ok(Acceptor(TlsAcceptor::from(Arc::new(config))))
        }

        pub(in crate::server) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
            self.0.accept(stream).await
        }
    }
}

#[cfg(not(feature = "tls"))]
mod without_tls {
    use std::io;

    use tokio::net::TcpStream;

    use crate::config::Tls;
    use crate::error::Error;

    /// Never made: this build has no TLS.
    #[derive(Clone)]
    pub(in crate::server) enum Acceptor {}

    impl Acceptor {
        pub(in crate::server) fn new(_tls: &Tls) -> Result<Self, Error> {
            Err(Error::NoTls)
        }

        pub(in crate::server) async fn accept(&self, _stream: TcpStream) -> io::Result<TcpStream> {
            match *self {}
        }
    }
}
