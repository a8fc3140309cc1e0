//! Which servers the command line believes to be who they say: Bacalhau's `--cacert` and `--insecure`.

use std::path::Path;

use ureq::config::ConfigBuilder;
use ureq::typestate::AgentScope;

use super::exit::{CliError, Exit};

/// A file of authorities larger than this was named by mistake.
#[cfg(feature = "tls")]
const MAX_FILE: u64 = 4 << 20;

/// Whose certificates are accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Trust {
    /// Those of the public authorities.
    #[default]
    Public,
    /// Those of these authorities (in DER) alone, or these certificates themselves.
    Only(Vec<Vec<u8>>),
    /// Anybody's: nothing is checked.
    Anything,
}

/// What went wrong with TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The certificate is not accepted.
    Certificate,
    /// The certificate is that of an authority, which may sign others' but not be shown as a server's.
    Authority,
    /// Something else; the other side may not speak TLS at all.
    Other,
}

#[cfg(feature = "tls")]
impl Trust {
    /// That of the authorities in a PEM file.
    ///
    /// # Errors
    /// The file cannot be read, or has no certificate.
    pub fn file(path: &Path) -> Result<Self, CliError> {
        use std::io::Read;
        let what = || format!("cannot read the authorities in {}", path.display());
        let failed = |error| CliError::caused(Exit::Config, what(), error);
        let mut pem = Vec::new();
        std::fs::File::open(path).map_err(failed)?.take(MAX_FILE).read_to_end(&mut pem).map_err(failed)?;
        let certificates: Vec<_> = ureq::tls::parse_pem(&pem)
            .filter_map(|item| match item {
                Ok(ureq::tls::PemItem::Certificate(certificate)) => Some(certificate.der().to_vec()),
                _ => None,
            })
            .collect();
        if certificates.is_empty() {
            return Err(CliError::new(Exit::Config, format!("{} holds no certificate", path.display()))
                .hint("give a file in PEM form (-----BEGIN CERTIFICATE-----)"));
        }
        Ok(Self::Only(certificates))
    }

    /// An agent's settings with this trust.
    pub fn of(&self, config: ConfigBuilder<AgentScope>) -> ConfigBuilder<AgentScope> {
        use ureq::tls::{Certificate, RootCerts, TlsConfig};
        let tls = TlsConfig::builder();
        config.tls_config(match self {
            Self::Public => tls.build(),
            Self::Only(certificates) => {
                let roots: Vec<_> =
                    certificates.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
                tls.root_certs(RootCerts::new_with_certs(&roots)).build()
            }
            Self::Anything => tls.disable_verification(true).build(),
        })
    }
}

#[cfg(not(feature = "tls"))]
impl Trust {
    /// Fails.
    ///
    /// # Errors
    /// Always: there is no TLS in this build.
    pub fn file(_path: &Path) -> Result<Self, CliError> {
        Err(CliError::new(Exit::Config, "this codling was built without TLS"))
    }

    /// An agent's settings; there is nothing to trust.
    pub fn of(&self, config: ConfigBuilder<AgentScope>) -> ConfigBuilder<AgentScope> {
        config
    }
}

/// Whether it was TLS that failed, and at what.
#[cfg(feature = "tls")]
#[must_use]
pub fn trouble(error: &ureq::Error) -> Option<Trouble> {
    match error {
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref().map(of_tls),
        ureq::Error::Rustls(error) => Some(of_tls(error)),
        _ => None,
    }
}

/// At what TLS failed.
#[cfg(feature = "tls")]
#[must_use]
pub fn of_tls(error: &rustls::Error) -> Trouble {
    use rustls::CertificateError;
    match error {
        // The library's own type for it is not ours to name.
        rustls::Error::InvalidCertificate(CertificateError::Other(other))
            if format!("{other:?}").contains("CaUsedAsEndEntity") =>
        {
            Trouble::Authority
        }
        rustls::Error::InvalidCertificate(_) => Trouble::Certificate,
        _ => Trouble::Other,
    }
}

/// Whether it was TLS that failed, and at what.
#[cfg(not(feature = "tls"))]
#[must_use]
pub fn trouble(_error: &ureq::Error) -> Option<Trouble> {
    None
}
