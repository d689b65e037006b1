//! The command line: every command with its flags and help.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::control_plane;
use crate::limits::MAX_LOAD_RPS;
use crate::node_agent::Registration;

/// A service mesh that speaks Istio's API, Envoy's xDS and the Kubernetes API, in one binary.
#[derive(Debug, Parser)]
#[command(name = "lateen", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "Examples:
  lateen demo                                     a shop of seven workloads, each with its sidecar
  export KUBECONFIG=$(lateen kubeconfig)          then kubectl apply -f virtual-service.yaml
  lateen run --service reviews --version v4 --port 9080 -- python3 app.py
  lateen ps                                       what runs, and how much memory it takes

Everything is kept under $LATEEN_HOME, else $XDG_STATE_HOME/lateen, else ~/.local/state/lateen.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the bookinfo shop: control plane, gateway, seven workloads with sidecars, a little load
    Demo(DemoArgs),
    /// Start a mesh without applications: control plane and gateway
    Up(UpArgs),
    /// Join a process to the running mesh
    Run(Box<RunArgs>),
    /// Give the programs of this host their identities: SPIFFE's Workload API on a Unix socket
    NodeAgent(NodeAgentArgs),
    /// Stop the running mesh and everything that joined it
    Down(DownArgs),
    /// List the workloads of the running mesh
    Ps(PsArgs),
    /// What each proxy was sent and has accepted, and how long its certificate holds
    ProxyStatus(ProxyStatusArgs),
    /// Print the logs of workloads
    Logs(LogsArgs),
    /// Tell what a proxy is configured with
    #[command(visible_alias = "pc")]
    ProxyConfig(ProxyConfigArgs),
    /// Print the path of the running mesh's kubeconfig
    Kubeconfig,
    /// Run one of the demo's services
    Bookinfo(BookinfoArgs),
    /// Run the control plane
    ControlPlane(control_plane::Args),
    /// Run the data plane; takes Envoy's flags
    #[command(disable_help_flag = true)]
    Proxy {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// Lines for people
    Text,
    /// One JSON object
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Capture {
    /// By namespace; by ports where namespaces are refused
    Auto,
    /// In a network namespace of its own, where nothing has to be changed
    Namespace,
    /// By explicit ports: the process listens on $PORT and finds services in $NAME_SERVICE_HOST and $NAME_SERVICE_PORT
    Ports,
}

impl Capture {
    /// The agent's word; `None` leaves it the choice.
    pub(crate) fn mode(self) -> Option<agent::CaptureMode> {
        match self {
            Self::Auto => None,
            Self::Namespace => Some(agent::CaptureMode::Namespace),
            Self::Ports => Some(agent::CaptureMode::Ports),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Go to the background once the shop is open; `lateen down` stops it
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// Undoes `--detach`, for the process in the background
    #[arg(long, hide = true, overrides_with = "detach")]
    attached: bool,
    /// What to print
    #[arg(long, short, value_enum, default_value = "text")]
    pub(crate) output: OutputFormat,
    /// How connections come to the sidecars
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) capture: Capture,
    /// Requests per second to the shop, 0 for none
    #[arg(long, default_value_t = 5, value_name = "RPS", value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_LOAD_RPS)))]
    pub(crate) load: u32,
    /// Keep the configuration of the last demo instead of starting fresh
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Go to the background once the mesh is ready; `lateen down` stops it
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// Undoes `--detach`, for the process in the background
    #[arg(long, hide = true, overrides_with = "detach")]
    attached: bool,
    /// What to print
    #[arg(long, short, value_enum, default_value = "text")]
    pub(crate) output: OutputFormat,
    /// Start no ingress gateway
    #[arg(long)]
    pub(crate) no_gateway: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The process starts when its sidecar is ready. It can call every service of the mesh by name, \
http://ratings:9080 for instance, without any change. When it ends, lateen ends with its exit code.

It can ask for its own certificate and for tokens with any SPIFFE client; $SPIFFE_ENDPOINT_SOCKET says where.

Where network namespaces are refused it is captured by ports: it must listen on $PORT, and finds ratings at \
$RATINGS_SERVICE_HOST, port $RATINGS_SERVICE_PORT."
)]
pub(crate) struct RunArgs {
    /// The service that the process belongs to; made when it does not exist
    #[arg(
        long,
        short,
        required_unless_present = "workload_files",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) service: String,
    /// Its version; DestinationRule subsets select it
    #[arg(long, short = 'V', default_value = "v1")]
    pub(crate) version: String,
    /// The port that the process listens on; repeat it for several, leave it out for a process that only calls others
    #[arg(long, short, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Vec<u16>,
    /// The namespace
    #[arg(long, short, default_value = "default")]
    pub(crate) namespace: String,
    /// The service account that the process runs as
    #[arg(long, default_value = "default")]
    pub(crate) service_account: String,
    /// Join the mesh of another machine instead of this user's: the folder with what `istioctl x workload entry
    /// configure` has written for this machine (cluster.env, mesh.yaml, root-cert.pem, istio-token, hosts)
    #[arg(long, value_name = "DIR", conflicts_with_all = ["service", "version", "namespace", "service_account", "label"])]
    pub(crate) workload_files: Option<PathBuf>,
    /// The address that the workload is reached at; of this machine's, the one from which it reaches the control plane
    #[arg(
        long,
        value_name = "IP",
        requires = "workload_files",
        conflicts_with = "service"
    )]
    pub(crate) address: Option<Ipv4Addr>,
    /// Show a certificate that somebody else keeps in files, instead of asking for one: the folder with cert-chain.pem,
    /// key.pem and root-cert.pem; /etc/certs where cluster.env has FILE_MOUNTED_CERTS
    #[arg(
        long,
        value_name = "DIR",
        requires = "workload_files",
        conflicts_with = "service"
    )]
    pub(crate) certificates: Option<PathBuf>,
    /// Another label, key=value; repeat it for several
    #[arg(long, short, value_parser = label)]
    pub(crate) label: Vec<(String, String)>,
    /// How connections come to the sidecar
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) capture: Capture,
    /// How long requests under way may take when the process is asked to end
    #[arg(long, default_value = "1s", value_parser = seconds)]
    pub(crate) drain: Duration,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "A running mesh has a node agent already, which gives each workload of `lateen run` its own identity; \
its socket is in $SPIFFE_ENDPOINT_SOCKET there. This one is for programs that were started otherwise, by other users, \
too: whoever can reach the socket may ask, and gets what its process is. A WorkloadGroup or WorkloadEntry must name the \
service account."
)]
pub(crate) struct NodeAgentArgs {
    /// The socket to serve on; programs find it in $SPIFFE_ENDPOINT_SOCKET=unix://PATH
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: std::path::PathBuf,
    /// Which processes have the identity of a service account, besides those that `lateen run` has started:
    /// unix:uid:N, unix:gid:N, or both; repeat it for several
    #[arg(long, value_name = "NAMESPACE/ACCOUNT=SELECTOR,...")]
    pub(crate) workload: Vec<Registration>,
    /// Where there is a page /metrics: how long each certificate is still valid, and how its renewals went
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) metrics: Option<std::net::SocketAddr>,
    /// The control plane's socket for agents of this host, instead of the running mesh's
    #[arg(long, value_name = "PATH")]
    pub(crate) agent_socket: Option<std::path::PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    /// Also forget the mesh's configuration
    #[arg(long)]
    pub(crate) purge: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// What to print
    #[arg(long, short, value_enum, default_value = "text")]
    pub(crate) output: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct ProxyStatusArgs {
    /// What to print
    #[arg(long, short, value_enum, default_value = "text")]
    pub(crate) output: OutputFormat,
    /// One column per type of configuration
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Only this workload, `reviews-v2` for instance, or `control-plane`
    pub(crate) name: Option<String>,
    /// Go on as lines are written
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// The proxies' logs too
    #[arg(long)]
    pub(crate) sidecar: bool,
    /// How many of the last lines of each log
    #[arg(long, default_value_t = 20)]
    pub(crate) tail: usize,
}

#[derive(Debug, Args)]
pub(crate) struct ProxyConfigArgs {
    #[command(subcommand)]
    pub(crate) what: ProxyConfigOf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProxyConfigOf {
    /// List the certificates and authorities that a proxy has got, and what was refused of them
    #[command(visible_aliases = ["secrets", "s"])]
    Secret(SecretArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SecretArgs {
    /// The workload, `reviews-v2` for instance
    #[arg(required_unless_present_any = ["file", "admin"])]
    pub(crate) workload: Option<String>,
    /// The workload's namespace
    #[arg(long, short)]
    pub(crate) namespace: Option<String>,
    /// Read a proxy's /config_dump from this file instead
    #[arg(long, short, conflicts_with_all = ["workload", "admin"])]
    pub(crate) file: Option<std::path::PathBuf>,
    /// Ask the admin interface at this address instead
    #[arg(long, conflicts_with = "workload", value_name = "ADDRESS")]
    pub(crate) admin: Option<std::net::SocketAddr>,
    /// What to print
    #[arg(long, short, value_enum, default_value = "text")]
    pub(crate) output: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct BookinfoArgs {
    /// productpage, details, reviews, ratings or ratingsdb
    pub(crate) service: bookinfo::ServiceName,
    /// Its version: reviews v2 has black stars and v3 red ones; ratings has v-faulty, v-delayed, v-unavailable, v-unhealthy
    #[arg(long, default_value = "v1")]
    pub(crate) version: String,
    /// The port that it listens on; by default 9080, and 6379 for ratingsdb
    #[arg(long, short, env = "PORT")]
    pub(crate) port: Option<u16>,
    /// The address that it listens on
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) bind: std::net::IpAddr,
}

fn label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    pair.map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| "a label is KEY=VALUE".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| "a duration is a number of seconds, 5s or 200ms".to_owned())?;
    Duration::try_from_secs_f64(number * unit).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_takes_everything_after_the_dashes() {
        let line = [
            "lateen",
            "run",
            "--service",
            "reviews",
            "--version",
            "v4",
            "--port",
            "9080",
            "--",
            "app",
            "--port",
            "1",
        ];
        let Command::Run(arguments) = Cli::parse_from(line).command else {
            panic!("not run")
        };
        assert_eq!(arguments.command, ["app", "--port", "1"]);
        assert_eq!(arguments.port, [9080]);
    }

    #[test]
    fn a_workload_is_described_by_flags_or_by_files() {
        assert!(Cli::try_parse_from(["lateen", "run", "--", "app"]).is_err());
        let by_files = [
            "lateen",
            "run",
            "--workload-files",
            "/vm",
            "--port",
            "4000",
            "--",
            "app",
        ];
        assert!(Cli::try_parse_from(by_files).is_ok());
        let both = [
            "lateen",
            "run",
            "--workload-files",
            "/vm",
            "--service",
            "a",
            "--",
            "app",
        ];
        assert!(Cli::try_parse_from(both).is_err());
        let certificates = [
            "lateen",
            "run",
            "--service",
            "a",
            "--certificates",
            "/certs",
            "--",
            "app",
        ];
        assert!(Cli::try_parse_from(certificates).is_err());
    }

    #[test]
    fn the_process_in_the_background_does_not_detach_again() {
        let Command::Demo(arguments) =
            Cli::parse_from(["lateen", "demo", "-do", "json", "--attached"]).command
        else {
            panic!("not demo")
        };
        assert!(!arguments.detach);
        assert_eq!(arguments.output, OutputFormat::Json);
    }

    #[test]
    fn durations_are_seconds_or_milliseconds() {
        assert_eq!(seconds("200ms").unwrap(), Duration::from_millis(200));
        assert_eq!(seconds("5s").unwrap(), Duration::from_secs(5));
        assert!(seconds("soon").is_err());
        assert!(seconds("-1s").is_err());
    }
}
