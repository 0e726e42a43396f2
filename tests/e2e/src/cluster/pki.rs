//! The cluster's certificates: one authority, and a client certificate for each component so that Node authorisation and
//! RBAC are the real ones. It writes files into one folder and nothing else.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::json;

/// The authority and the folder that its certificates go to.
#[derive(Debug)]
pub(super) struct Pki {
    dir: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate's two files.
#[derive(Debug, Clone)]
pub(super) struct CertificateFiles {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl Pki {
    /// Makes an authority of its own for this cluster, and the key pair that signs service account tokens.
    pub(super) fn create(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "enipool test cluster");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        write(&dir.join("ca.crt"), &issuer.pem())?;
        let accounts = KeyPair::generate()?;
        write(&dir.join("service-accounts.key"), &accounts.serialize_pem())?;
        write(&dir.join("service-accounts.pub"), &accounts.public_key_pem())?;
        Ok(Self { dir: dir.to_owned(), issuer })
    }

    /// The authority's certificate.
    pub(super) fn authority(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// The private key that signs service account tokens.
    pub(super) fn accounts_key(&self) -> PathBuf {
        self.dir.join("service-accounts.key")
    }

    /// The public key that service account tokens are checked with.
    pub(super) fn accounts_public_key(&self) -> PathBuf {
        self.dir.join("service-accounts.pub")
    }

    /// A client certificate: `user` and `group` are what RBAC and the Node authoriser see.
    pub(super) fn client(&self, file: &str, user: &str, group: Option<&str>) -> Result<CertificateFiles> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(file, params)
    }

    /// A server certificate for these names and addresses.
    pub(super) fn server(&self, file: &str, names: &[&str], addresses: &[Ipv4Addr]) -> Result<CertificateFiles> {
        let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, file);
        params.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress(IpAddr::V4(*address))));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(file, params)
    }

    /// A kubeconfig for a client certificate.
    pub(super) fn kubeconfig(&self, file: &str, server: &str, client: &CertificateFiles) -> Result<PathBuf> {
        // JSON is YAML too: no serialiser of its own for four files.
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "enipool",
            "clusters": [{"name": "enipool", "cluster": {"server": server, "certificate-authority": self.authority()}}],
            "users": [{"name": file, "user": {"client-certificate": client.certificate, "client-key": client.key}}],
            "contexts": [{"name": "enipool", "context": {"cluster": "enipool", "user": file}}],
        });
        let path = self.dir.join(format!("{file}.kubeconfig"));
        write(&path, &serde_json::to_string_pretty(&config)?)?;
        Ok(path)
    }

    fn sign(&self, file: &str, mut params: CertificateParams) -> Result<CertificateFiles> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let files = CertificateFiles {
            certificate: self.dir.join(format!("{file}.crt")),
            key: self.dir.join(format!("{file}.key")),
        };
        write(&files.certificate, &certificate.pem())?;
        write(&files.key, &key.serialize_pem())?;
        Ok(files)
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("creating {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("writing {}", path.display()))
}
