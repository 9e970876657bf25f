//! The settings of a node: from a file, the environment and the command line, the later one wins.

use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use vecino_engine::memory::{LIMIT_DEFAULT, MemoryLimit, NoLimit};

use crate::open_collections::OPEN_MAX_DEFAULT;

/// Where a node keeps everything unless told otherwise.
pub const DATA_DEFAULT: &str = "./vecino-data";
/// Where a node listens unless told otherwise.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:7400";

/// Everything that a node can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Folder for everything that the node keeps.
    pub data: PathBuf,
    /// UDP address to listen on; port 0 takes any that is free.
    pub listen: SocketAddr,
    /// `host:port` at which others reach the node; the listening address where absent.
    pub advertise: Option<String>,
    /// `host:port` of nodes to join through.
    pub seeds: Vec<String>,
    /// Folder with the node's certificate; made in the data folder where absent.
    pub certs: Option<PathBuf>,
    /// How much memory the node may take.
    pub memory_limit: MemoryLimit,
    /// Collections that are open at once; those that are idle longest are closed beyond it.
    pub open_collections: usize,
    /// How log lines look.
    pub log_format: LogFormat,
}

/// What one source says: the file, the environment or the command line. What it leaves out stays as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Layer {
    /// See [`Settings::data`].
    pub data: Option<PathBuf>,
    /// See [`Settings::listen`].
    pub listen: Option<Listen>,
    /// See [`Settings::advertise`].
    pub advertise: Option<String>,
    /// See [`Settings::seeds`].
    pub seeds: Option<Vec<String>>,
    /// See [`Settings::certs`].
    pub certs: Option<PathBuf>,
    /// See [`Settings::memory_limit`].
    pub memory_limit: Option<MemoryLimit>,
    /// See [`Settings::open_collections`].
    pub open_collections: Option<usize>,
    /// See [`Settings::log_format`].
    pub log_format: Option<LogFormat>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("use text or json".to_owned()),
        }
    }
}

impl<'de> Deserialize<'de> for LogFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|reason| D::Error::custom(format_args!("log_format {text:?}: {reason}")))
    }
}

/// An address of this machine to listen on. It is written `IP:PORT`, `NAME:PORT`, or `:PORT` for loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(pub SocketAddr);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let usage = || "use IP:PORT, NAME:PORT or :PORT, for example 127.0.0.1:7400".to_owned();
        if let Ok(address) = text.parse() {
            return Ok(Self(address));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(usage)?;
        let port: u16 = port.parse().map_err(|_| usage())?;
        if host.is_empty() {
            let loopback: SocketAddr = LISTEN_DEFAULT.parse().expect("the default is an address");
            return Ok(Self(SocketAddr::new(loopback.ip(), port)));
        }
        // Where a name has addresses of both kinds, IPv4 is taken, as in the default of a client.
        let found = (host, port).to_socket_addrs().map_err(|error| format!("{host:?} has no address: {error}"))?;
        found.min_by_key(SocketAddr::is_ipv6).map(Self).ok_or_else(|| format!("{host:?} has no address"))
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|reason| D::Error::custom(format_args!("listen {text:?}: {reason}")))
    }
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the settings in {path}: {source}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file's name says neither TOML nor YAML.
    #[error("{path} is neither TOML nor YAML by its name: call it .toml, .yaml or .yml", path = path.display())]
    Format {
        /// Which file.
        path: PathBuf,
    },
    /// The file does not say what it should.
    #[error("{path}: {reason}", path = path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What the parser said, with the place.
        reason: String,
    },
    /// A variable of the environment is no such value.
    #[error("{name} is {value:?}: {reason}")]
    Variable {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody could reach the node.
    #[error(
        "listening on {listen} means every address of this machine, and other nodes need one of them: \
         add --advertise HOST:PORT (or VECINO_ADVERTISE)"
    )]
    NothingToAdvertise {
        /// Where it listens.
        listen: SocketAddr,
    },
    /// The address for others stands for every address of a machine.
    #[error("advertise {address:?} names no machine: use an address or a name at which other nodes reach this one")]
    AdvertisedAnywhere {
        /// As it was given.
        address: String,
    },
    /// Nothing could be open.
    #[error("at most {value} collections open at once: use 1 or more, {OPEN_MAX_DEFAULT} is usual")]
    OpenCollections {
        /// What was asked for.
        value: usize,
    },
    /// An address without a port, or without a host.
    #[error("{setting} {value:?} is no address: use HOST:PORT, for example 10.0.0.7:7400")]
    Address {
        /// Which setting.
        setting: &'static str,
        /// Its value.
        value: String,
    },
}

impl Settings {
    /// Combines what the file, the environment and the command line say; the later source wins. `file` is the settings
    /// file that the command line names, and `variable` looks up an environment variable.
    ///
    /// # Errors
    /// When the file or a variable cannot be read, or the settings together cannot be used.
    pub fn load(
        file: Option<PathBuf>,
        flags: Layer,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConfigError> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let environment = Layer::of_environment(variable)?;
        let file = match file.or_else(|| variable("VECINO_CONFIG").map(PathBuf::from)) {
            Some(path) => Layer::of_file(&path)?,
            None => Layer::default(),
        };
        file.overlaid_by(environment).overlaid_by(flags).into_settings()
    }
}

impl Layer {
    fn of_file(path: &Path) -> Result<Self, ConfigError> {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let is_toml = match extension {
            "toml" => true,
            "yaml" | "yml" => false,
            _ => return Err(ConfigError::Format { path: path.to_owned() }),
        };
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let parsed = if is_toml {
            toml::from_str(&text).map_err(|error| error.to_string())
        } else if text.trim().is_empty() {
            Ok(Self::default())
        } else {
            serde_saphyr::from_str(&text).map_err(|error| error.to_string())
        };
        parsed.map_err(|reason| ConfigError::Parse { path: path.to_owned(), reason: reason.trim_end().to_owned() })
    }

    fn of_environment(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, ConfigError> {
        let text = |name: &'static str| match variable(name).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(text)) => Ok(Some(text)),
            Some(Err(raw)) => Err(ConfigError::Variable {
                name,
                value: raw.to_string_lossy().into_owned(),
                reason: "it is not UTF-8".to_owned(),
            }),
        };
        let listen = text("VECINO_LISTEN")?.map(|value| {
            value.parse().map_err(|reason| ConfigError::Variable { name: "VECINO_LISTEN", reason, value })
        });
        let memory_limit = text("VECINO_MEMORY_LIMIT")?.map(|value| {
            value.parse().map_err(|error: NoLimit| ConfigError::Variable {
                name: "VECINO_MEMORY_LIMIT",
                reason: error.to_string(),
                value,
            })
        });
        let log_format = text("VECINO_LOG_FORMAT")?.map(|value| {
            value.parse().map_err(|reason| ConfigError::Variable { name: "VECINO_LOG_FORMAT", reason, value })
        });
        let open_collections = text("VECINO_OPEN_COLLECTIONS")?.map(|value| {
            value.parse().map_err(|_| ConfigError::Variable {
                name: "VECINO_OPEN_COLLECTIONS",
                reason: "use a whole number, for example 256".to_owned(),
                value,
            })
        });
        let split = |list: String| list.split(',').map(|seed| seed.trim().to_owned()).collect();
        Ok(Self {
            data: variable("VECINO_DATA").map(PathBuf::from),
            listen: listen.transpose()?,
            advertise: text("VECINO_ADVERTISE")?,
            seeds: text("VECINO_SEEDS")?.map(split),
            certs: variable("VECINO_CERTS").map(PathBuf::from),
            memory_limit: memory_limit.transpose()?,
            open_collections: open_collections.transpose()?,
            log_format: log_format.transpose()?,
        })
    }

    fn overlaid_by(self, upper: Self) -> Self {
        let Self { data, listen, advertise, seeds, certs, memory_limit, open_collections, log_format } = upper;
        Self {
            data: data.or(self.data),
            listen: listen.or(self.listen),
            advertise: advertise.or(self.advertise),
            seeds: seeds.or(self.seeds),
            certs: certs.or(self.certs),
            memory_limit: memory_limit.or(self.memory_limit),
            open_collections: open_collections.or(self.open_collections),
            log_format: log_format.or(self.log_format),
        }
    }

    fn into_settings(self) -> Result<Settings, ConfigError> {
        let Self { data, listen, advertise, seeds, certs, memory_limit, open_collections, log_format } = self;
        let Listen(listen) = listen.unwrap_or_else(|| LISTEN_DEFAULT.parse().expect("the default is an address"));
        if listen.ip().is_unspecified() && advertise.is_none() {
            return Err(ConfigError::NothingToAdvertise { listen });
        }
        let seeds = seeds.unwrap_or_default();
        let named =
            seeds.iter().map(|seed| ("seed", seed)).chain(advertise.iter().map(|address| ("advertise", address)));
        for (setting, value) in named {
            let port = value.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(1..))) {
                return Err(ConfigError::Address { setting, value: value.clone() });
            }
        }
        if let Some(address) = &advertise
            && address.parse().is_ok_and(|parsed: SocketAddr| parsed.ip().is_unspecified())
        {
            return Err(ConfigError::AdvertisedAnywhere { address: address.clone() });
        }
        let open_collections = open_collections.unwrap_or(OPEN_MAX_DEFAULT);
        if open_collections == 0 {
            return Err(ConfigError::OpenCollections { value: open_collections });
        }
        Ok(Settings {
            open_collections,
            data: data.unwrap_or_else(|| PathBuf::from(DATA_DEFAULT)),
            listen,
            advertise,
            seeds,
            certs,
            memory_limit: memory_limit.unwrap_or(LIMIT_DEFAULT),
            log_format: log_format.unwrap_or(LogFormat::Text),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn load(file: Option<PathBuf>, flags: Layer, variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        Settings::load(file, flags, |name| variables.get(name).map(OsString::from))
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let toml = folder.path().join("node.toml");
        let yaml = folder.path().join("node.yaml");
        let file = "data = 'file'\nlisten = '127.0.0.1:1'\nadvertise = 'file:1'\nseeds = ['file:1']\nlog_format = 'json'\n\
             memory_limit = '50%'\nopen_collections = 7\n";
        std::fs::write(&toml, file).unwrap();
        let file = "data: file\nlisten: 127.0.0.1:1\nadvertise: file:1\nseeds: [file:1]\nlog_format: json\n\
             memory_limit: 1073741824\nopen_collections: 7\n";
        std::fs::write(&yaml, file).unwrap();
        for (config, limit) in [(toml, MemoryLimit::Percent(50)), (yaml, MemoryLimit::Bytes(1 << 30))] {
            let flags = Layer { seeds: Some(vec!["flag:3".into(), "flag:4".into()]), ..Layer::default() };
            let variables = [("VECINO_SEEDS", "env:2"), ("VECINO_ADVERTISE", "env:2"), ("VECINO_CERTS", "")];
            let expected = Settings {
                data: "file".into(),
                listen: "127.0.0.1:1".parse().unwrap(),
                advertise: Some("env:2".into()),
                seeds: vec!["flag:3".into(), "flag:4".into()],
                certs: None,
                memory_limit: limit,
                open_collections: 7,
                log_format: LogFormat::Json,
            };
            assert_eq!(load(Some(config.clone()), flags, &variables).unwrap(), expected);
            let variables = [("VECINO_MEMORY_LIMIT", "128MiB")];
            assert_eq!(
                load(Some(config.clone()), Layer::default(), &variables).unwrap().memory_limit,
                MemoryLimit::Bytes(128 << 20)
            );
            // The file may be named by the environment, and seeds there are separated by commas.
            let named = [("VECINO_CONFIG", config.to_str().unwrap()), ("VECINO_SEEDS", "a:1, b:2")];
            assert_eq!(load(None, Layer::default(), &named).unwrap().seeds, ["a:1", "b:2"]);
        }
    }

    #[test]
    fn nothing_said_means_loopback_and_a_folder_here() {
        let settings = load(None, Layer::default(), &[]).unwrap();
        assert_eq!(
            (settings.listen.to_string().as_str(), settings.data, settings.memory_limit),
            (LISTEN_DEFAULT, PathBuf::from(DATA_DEFAULT), MemoryLimit::Percent(70))
        );
    }

    #[test]
    fn what_cannot_be_used_is_named_with_what_to_do() {
        let told = |flags, variables: &[_]| load(None, flags, variables).unwrap_err().to_string();
        let anywhere = || Layer { listen: Some("0.0.0.0:7400".parse().unwrap()), ..Layer::default() };
        assert!(told(anywhere(), &[]).contains("--advertise"));
        assert!(load(None, anywhere(), &[("VECINO_ADVERTISE", "here:7400")]).is_ok());
        assert!(told(Layer::default(), &[("VECINO_LISTEN", "7400")]).starts_with("VECINO_LISTEN is \"7400\""));
        let limit = told(Layer::default(), &[("VECINO_MEMORY_LIMIT", "much")]);
        assert!(limit.contains("VECINO_MEMORY_LIMIT") && limit.contains("512MiB"), "{limit}");
        assert!(told(Layer { open_collections: Some(0), ..Layer::default() }, &[]).contains("1 or more"));
        assert!(told(Layer::default(), &[("VECINO_OPEN_COLLECTIONS", "many")]).contains("whole number"));
        for seed in ["host", "host:", ":7400", "host:0", "host:65536"] {
            let flags = Layer { seeds: Some(vec![seed.into()]), ..Layer::default() };
            assert!(told(flags, &[]).contains("HOST:PORT"), "{seed}");
        }
        let folder = tempfile::tempdir().unwrap();
        let written = |name: &str, text: &str| {
            let config = folder.path().join(name);
            std::fs::write(&config, text).unwrap();
            load(Some(config), Layer::default(), &[]).unwrap_err().to_string()
        };
        assert!(written("a.ini", "").contains(".toml, .yaml or .yml"));
        assert!(written("a.toml", "listen = 7\n").contains("listen"));
        assert!(written("b.toml", "listn = '127.0.0.1:1'\n").contains("listn"));
        assert!(written("c.yaml", "listn: 127.0.0.1:1\n").contains("listn"));
        assert!(written("d.toml", "listen = '7400'\n").contains("use IP:PORT"));
        assert!(written("e.yaml", "log_format: xml\n").contains("use text or json"));
        let missing = load(Some(folder.path().join("none.toml")), Layer::default(), &[]).unwrap_err();
        assert!(missing.to_string().contains("none.toml"));
    }
    #[test]
    fn a_listening_address_may_be_a_name_or_a_port_alone() {
        let parsed = |text: &str| text.parse::<Listen>().map(|Listen(address)| address.to_string());
        assert_eq!(parsed("localhost:7450").unwrap(), "127.0.0.1:7450");
        assert_eq!(parsed(":7450").unwrap(), "127.0.0.1:7450");
        assert_eq!(parsed("[::1]:9").unwrap(), "[::1]:9");
        for text in ["localhost", "7450", "127.0.0.1", "localhost:", "localhost:65536"] {
            assert!(parsed(text).unwrap_err().starts_with("use IP:PORT"), "{text}");
        }
    }

    #[test]
    fn an_advertised_address_that_names_no_machine_is_refused() {
        for address in ["0.0.0.0:7405", "[::]:7405"] {
            let flags = Layer { advertise: Some(address.into()), ..Layer::default() };
            let error = load(None, flags, &[]).unwrap_err().to_string();
            assert!(error.contains(address) && error.contains("names no machine"), "{error}");
        }
    }
}
