//! All verbs, with the examples of their help.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    AgentArgs, AwaitArgs, CniArgs, DeleteArgs, DemoArgs, ExposeArgs, Format, GetArgs, Global, HolderArgs,
    LaunchArgs, ListArgs, PortsArgs, ProxyArgs, RegistryArgs, RelayArgs, ResolveArgs, RunArgs, STYLES,
    ServeArgs, TraceArgs, UpArgs, WatchArgs, WebhookArgs, look::EXIT_CODES,
};

/// Ports that can be reached, names that find them, packets that arrive.
#[derive(Parser, Clone, Debug)]
#[command(name = "portolan", version, styles = STYLES, after_help = EXIT_CODES)]
#[command(subcommand_required = true, arg_required_else_help = true, max_term_width = 110)]
pub struct Cli {
    /// Flags of every verb.
    #[command(flatten)]
    pub global: Global,

    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Subcommand, Clone, Debug)]
pub enum Verb {
    /// Start everything with three servers that have random ports, and show them
    #[command(after_help = "\
Examples:
  portolan demo                 # three copies; Ctrl-C ends it and leaves nothing behind
  portolan demo --replicas 10   # ten copies")]
    Demo(Box<DemoArgs>),

    /// Run the catalog, its API and page, DNS and the data plane in this process
    #[command(after_help = "\
Examples:
  portolan up                                   # all on loopback
  portolan up --pool 20000-29999 --pool media=30000-31999
  portolan up -f services.yaml                  # and Kubernetes Services, without Kubernetes
  portolan up --config /etc/portolan.toml       # with keys such as: listen = \"127.0.0.1:10080\"

A flag wins over the environment (PORTOLAN_LISTEN and so on), that over the file, that over the default.")]
    Up(Box<UpArgs>),

    /// Run a command with published ports and register it
    #[command(after_help = "\
Examples:
  portolan run -p http -- ./server              # a random port; the server listens on $PORT
  portolan run -p web=:8080 --health http:/healthz -- ./server
  portolan run -p game/tcp+udp --replicas 3 -- ./game
  portolan run -p media/udp:100 -- ./relay      # 100 UDP ports in a row: $PORTOLAN_PORT_MEDIA is FIRST-LAST

The command learns its ports before it starts: PORTOLAN_PORT_<NAME>, PORTOLAN_ADDR_<NAME>, PORTOLAN_PORTS (JSON)
and PORT. `portolan run` ends with the command's exit code.")]
    Run(Box<RunArgs>),

    /// Serve a page on a random port and register it: the dynamic-port server
    #[command(after_help = "\
Examples:
  portolan serve
  portolan serve -advertised-ip 192.0.2.10 -service-registry 127.0.0.1:10081
  kill -USR1 PID                                # unhealthy; again: healthy
  curl -X POST localhost:PORT/unhealthy         # the same, from this machine only; /healthy turns it back")]
    Serve(Box<ServeArgs>),

    /// Run the catalog alone, with its API and page: for a cluster
    #[command(after_help = "\
Examples:
  portolan registry                             # all on loopback
  portolan registry --listen 0.0.0.0:80 --register-listen 0.0.0.0:10080 --token-file /etc/portolan/token
  portolan registry -api=0.0.0.0:10080 -http=0.0.0.0:80    # with the flags of the tutorial's

Everybody who reaches it may read. To write one needs the token, or an address that --allow-anonymous-from allows.")]
    Registry(Box<RegistryArgs>),

    /// Show the instances of the catalog
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  portolan list
  portolan list --service web --state passing -o json
  portolan list -l zone=b --port http -o wide"
    )]
    List(ListArgs),

    /// Show all about one instance, or the Services of this machine
    #[command(after_help = "\
Examples:
  portolan get web-0
  portolan get services                         # cluster addresses, ports; -o wide with endpoints
  portolan get service web -o yaml              # as kubectl shows it
  portolan get web-0 -o yaml")]
    Get(GetArgs),

    /// Show instances as they come, change and go
    #[command(after_help = "\
Examples:
  portolan watch
  portolan watch --service web -o json          # one JSON object per line")]
    Watch(WatchArgs),

    /// Ask DNS for a name and show what clients would get
    #[command(after_help = "\
Examples:
  portolan resolve web-0                        # addresses and ports of an instance
  portolan resolve _http._tcp.web               # SRV: all copies of a service with their ports")]
    Resolve(ResolveArgs),

    /// Show the pools of this machine and who has which port
    #[command(after_help = "\
Examples:
  portolan ports
  portolan ports -o json")]
    Ports(PortsArgs),

    /// Say what this machine allows, what is in the way, and how to mend it
    #[command(after_help = "\
Examples:
  portolan doctor
  portolan doctor --pool 30000-31999 -o json

Exits with 1 when a line says fail.")]
    Doctor(DoctorArgs),

    /// Make a Service of copies of a program: one address for all of them
    #[command(after_help = "\
Examples:
  portolan expose web --port 80                 # all passing copies of web at one address; `portolan get services`
  portolan expose web --port 80 --target-port http --type NodePort
  portolan expose instance web-0 --port 80 --name first
  portolan expose --selector app=web,tier=front --name front --port 80 --session-affinity ClientIP
  portolan expose web --port 80 --dry-run=client -o yaml > services.yaml    # for `portolan up -f services.yaml`

`portolan up` serves it, under the name NAME.NAMESPACE.svc.ZONE too, until `portolan delete service NAME`.")]
    Expose(Box<ExposeArgs>),

    /// Take a Service away that `portolan expose` has made
    #[command(after_help = "\
Examples:
  portolan delete service web
  portolan delete service/web -n shop")]
    Delete(DeleteArgs),

    /// Serve Services in user space, without privileges: a proxy for TCP and UDP
    #[command(after_help = "\
Examples:
  portolan relay -f services.yaml               # node ports of all Services in the file, on all addresses
  portolan relay -f services.yaml --listen web=127.0.0.1:8080 --no-node-ports
  portolan relay -f services/ --proxy-protocol v2 --max-per-client 100 --metrics-listen 127.0.0.1:9090

The endpoints are those of the EndpointSlices in the file. Bytes of TCP do not pass through this process (splice),
datagrams of UDP come and go in batches. SIGTERM takes nobody new and lets connections end.")]
    Relay(Box<RelayArgs>),

    /// Give the Pods of this Kubernetes node ports: what a DaemonSet runs
    #[command(after_help = "\
Examples:
  portolan agent                                # in a Pod: node from $NODE_NAME, pools from PortPools
  portolan agent --kubeconfig admin.conf --node-name node-1 --pool 20000-29999 --pool media=30000-31999
  portolan agent --standalone --install-cni     # no Kubernetes: CNI portMappings for containerd or CRI-O
  portolan agent --cleanup                      # take everything off this node again

A Pod asks by annotation, in a namespace with the label portolan.dev/ports=allowed:
  portolan.dev/ports: \"http, game/tcp+udp, media/udp:100, web=8443\"   # names or numbers of containerPorts; * for all
and is told by portolan.dev/ports-status, by its environment as with `portolan run`, and by an Event.")]
    Agent(Box<AgentArgs>),

    /// Do what kube-proxy does on this node: what a DaemonSet runs
    #[command(after_help = "\
Examples:
  portolan proxy                                # in a Pod: in place of kube-proxy, Node from $NODE_NAME
  portolan proxy --config /var/lib/kube-proxy/config.conf --hostname-override node-1
  portolan proxy --service-proxy-name portolan  # beside kube-proxy: only Services with this label
  portolan proxy --cleanup                      # take our rules off this node
  portolan proxy status                         # what the proxy of this node serves

Flags and configuration file are those of kube-proxy. Ended, it leaves its rules for the next one.")]
    Proxy(Box<ProxyArgs>),

    /// Say what happens to a packet that asks a Service, hop by hop, and why
    #[command(after_help = "\
Examples:
  portolan trace 10.1.0.7 default/web           # from a Pod to a Service
  portolan trace 192.0.2.9 :30080               # from outside to a node port of this machine
  portolan trace node 10.96.0.10:53 --protocol udp -o json
  portolan trace 10.1.0.7 '[fd00:96::1]:443' --from services.yaml --node-name node-1
  portolan trace node default/web --live --send # and does the kernel do the same?

Services and endpoints are those of the proxy of this machine, the rules those that it makes of them.")]
    Trace(Box<TraceArgs>),

    /// Run the admission webhook and the controller of endpoints of a cluster: what a Deployment runs
    #[command(after_help = "\
Examples:
  portolan webhook                              # in a Pod, beside other replicas
  portolan webhook --kubeconfig admin.conf --namespace portolan --listen 0.0.0.0:10443")]
    Webhook(Box<WebhookArgs>),

    /// Put the CNI plugin into a container runtime's configuration, or out of it
    #[command(after_help = "\
Examples:
  portolan cni install                          # into /opt/cni/bin, and the first file of /etc/cni/net.d
  portolan cni install --standalone             # without an agent, in the place of portmap
  portolan cni install --watch                  # and again when another plugin writes its file anew
  portolan cni uninstall                        # the configuration is as it was

The plugin is this program, called with CNI_COMMAND in its environment: ADD, DEL, CHECK, GC, STATUS and VERSION.")]
    Cni(CniArgs),

    /// Print the completions of a shell
    #[command(after_help = "\
Examples:
  portolan completions bash > /etc/bash_completion.d/portolan
  portolan completions zsh > \"${fpath[1]}/_portolan\"
  portolan completions fish > ~/.config/fish/completions/portolan.fish")]
    Completions(CompletionsArgs),

    /// Print the man page, or write those of all verbs to a folder
    #[command(after_help = "\
Examples:
  portolan man | man -l -
  portolan man /usr/local/share/man/man1")]
    Man(ManArgs),

    /// Wait until a DaemonSet is ready on every node
    #[command(hide = true)]
    Await(AwaitArgs),

    /// Keep ports bound for `portolan up`
    #[command(hide = true)]
    Holder(HolderArgs),

    /// Enter the network of an instance and become its command
    #[command(hide = true)]
    Launch(LaunchArgs),
}

/// Flags of `portolan doctor`.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,

    /// The pools that `portolan up` is to have. Repeatable.
    #[arg(
        long = "pool",
        value_name = "[NAME=]RANGE",
        env = "PORTOLAN_POOL",
        value_delimiter = ',',
        default_value = "20000-29999"
    )]
    pub pools: Vec<crate::Pool>,

    /// The addresses that `portolan up` is to listen on for HTTP. Repeatable.
    #[arg(
        long,
        value_name = "ADDRESS",
        value_delimiter = ',',
        default_value = "127.0.0.1:10080,127.0.0.1:10081,127.0.0.1:10082"
    )]
    pub listen: Vec<SocketAddr>,

    /// The address that `portolan up` is to listen on for DNS.
    #[arg(long, value_name = "ADDRESS", env = "PORTOLAN_DNS_LISTEN", default_value = "127.0.0.1:10053")]
    pub dns_listen: SocketAddr,
}

/// Flags of `portolan completions`.
#[derive(Args, Clone, Debug)]
pub struct CompletionsArgs {
    /// Whose.
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// Flags of `portolan man`.
#[derive(Args, Clone, Debug)]
pub struct ManArgs {
    /// Where to write portolan.1, portolan-run.1 and so on; without it portolan.1 goes to stdout.
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
}
