//! The settings of a node: from a file, the environment and the command line, the later one wins.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Deserialize;

use crate::cli::args::{LogFormat, NodeArgs};
use crate::memory::{LIMIT_DEFAULT, MemoryLimit, NoLimit};
use crate::node::shelf::OPEN_MAX_DEFAULT;

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

/// What one source says; what it leaves out stays as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Layer {
    data: Option<PathBuf>,
    listen: Option<SocketAddr>,
    advertise: Option<String>,
    seeds: Option<Vec<String>>,
    certs: Option<PathBuf>,
    memory_limit: Option<MemoryLimit>,
    open_collections: Option<usize>,
    log_format: Option<LogFormat>,
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
    /// Puts together what file, environment and command line say. `variable` looks up an environment variable.
    pub fn load(args: NodeArgs, variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, ConfigError> {
        let NodeArgs { data, listen, advertise, seeds, certs, config, memory_limit, open_collections, log_format } =
            args;
        let seeds = (!seeds.is_empty()).then_some(seeds);
        let flags = Layer { data, listen, advertise, seeds, certs, memory_limit, open_collections, log_format };
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let environment = Layer::of_environment(variable)?;
        let file = match config.or_else(|| variable("VECINO_CONFIG").map(PathBuf::from)) {
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
            value.parse().map_err(|_| ConfigError::Variable {
                name: "VECINO_LISTEN",
                reason: "use IP:PORT, for example 127.0.0.1:7400".to_owned(),
                value,
            })
        });
        let memory_limit = text("VECINO_MEMORY_LIMIT")?.map(|value| {
            value.parse().map_err(|error: NoLimit| ConfigError::Variable {
                name: "VECINO_MEMORY_LIMIT",
                reason: error.to_string(),
                value,
            })
        });
        let log_format = text("VECINO_LOG_FORMAT")?.map(|value| {
            LogFormat::from_str(&value, false).map_err(|_| ConfigError::Variable {
                name: "VECINO_LOG_FORMAT",
                reason: "use text or json".to_owned(),
                value,
            })
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
        let listen = listen.unwrap_or_else(|| LISTEN_DEFAULT.parse().expect("the default is an address"));
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

    fn load(args: NodeArgs, variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        Settings::load(args, |name| variables.get(name).map(OsString::from))
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
            let args = NodeArgs {
                config: Some(config.clone()),
                seeds: vec!["flag:3".into(), "flag:4".into()],
                ..NodeArgs::default()
            };
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
            assert_eq!(load(args, &variables).unwrap(), expected);
            let limited = NodeArgs { config: Some(config.clone()), ..NodeArgs::default() };
            let variables = [("VECINO_MEMORY_LIMIT", "128MiB")];
            assert_eq!(load(limited, &variables).unwrap().memory_limit, MemoryLimit::Bytes(128 << 20));
            // The file may be named by the environment, and seeds there are separated by commas.
            let named = [("VECINO_CONFIG", config.to_str().unwrap()), ("VECINO_SEEDS", "a:1, b:2")];
            assert_eq!(load(NodeArgs::default(), &named).unwrap().seeds, ["a:1", "b:2"]);
        }
    }

    #[test]
    fn nothing_said_means_loopback_and_a_folder_here() {
        let settings = load(NodeArgs::default(), &[]).unwrap();
        assert_eq!(
            (settings.listen.to_string().as_str(), settings.data, settings.memory_limit),
            (LISTEN_DEFAULT, PathBuf::from(DATA_DEFAULT), MemoryLimit::Percent(70))
        );
    }

    #[test]
    fn what_cannot_be_used_is_named_with_what_to_do() {
        let told = |args, variables: &[_]| load(args, variables).unwrap_err().to_string();
        let anywhere = || NodeArgs { listen: Some("0.0.0.0:7400".parse().unwrap()), ..NodeArgs::default() };
        assert!(told(anywhere(), &[]).contains("--advertise"));
        assert!(load(anywhere(), &[("VECINO_ADVERTISE", "here:7400")]).is_ok());
        assert!(told(NodeArgs::default(), &[("VECINO_LISTEN", "7400")]).starts_with("VECINO_LISTEN is \"7400\""));
        let limit = told(NodeArgs::default(), &[("VECINO_MEMORY_LIMIT", "much")]);
        assert!(limit.contains("VECINO_MEMORY_LIMIT") && limit.contains("512MiB"), "{limit}");
        assert!(told(NodeArgs { open_collections: Some(0), ..NodeArgs::default() }, &[]).contains("1 or more"));
        assert!(told(NodeArgs::default(), &[("VECINO_OPEN_COLLECTIONS", "many")]).contains("whole number"));
        for seed in ["host", "host:", ":7400", "host:0", "host:65536"] {
            let args = NodeArgs { seeds: vec![seed.into()], ..NodeArgs::default() };
            assert!(told(args, &[]).contains("HOST:PORT"), "{seed}");
        }
        let folder = tempfile::tempdir().unwrap();
        let written = |name: &str, text: &str| {
            let config = folder.path().join(name);
            std::fs::write(&config, text).unwrap();
            told(NodeArgs { config: Some(config), ..NodeArgs::default() }, &[])
        };
        assert!(written("a.ini", "").contains(".toml, .yaml or .yml"));
        assert!(written("a.toml", "listen = 7\n").contains("listen"));
        assert!(written("b.toml", "listn = '127.0.0.1:1'\n").contains("listn"));
        assert!(written("c.yaml", "listn: 127.0.0.1:1\n").contains("listn"));
        let missing = NodeArgs { config: Some(folder.path().join("none.toml")), ..NodeArgs::default() };
        assert!(told(missing, &[]).contains("none.toml"));
    }
}
