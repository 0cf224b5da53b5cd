//! The cost of watching a cluster of 10 000 services and listing 5 000 nodes on one node: bytes, time and memory.
//!
//! `cargo bench -p probe-user --bench cluster`
//!
//! The API server is another process, so that only the memory and time of the client are measured.
#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "the output is the purpose of this program, and no crate depends on it"
)]

#[cfg(feature = "kubernetes")]
mod measure {
    use std::{
        env, fs,
        io::{BufRead as _, BufReader, Read as _, Write as _},
        net::{TcpListener, TcpStream},
        process::{Command, Stdio},
        time::{Duration, Instant},
    };

    use kube::Config;
    use probe_cluster::{ClusterSnapshot, Resource, snapshot::ResourceState};
    use probe_kubernetes::{ApiConnection, ClusterHandle};
    use serde_json::{Value, json};

    const SERVICES: usize = 10_000;
    const NODES: usize = 5_000;
    const STATUSES: usize = SERVICES;
    const POOLS: usize = 20;

    /// The environment variable that makes this process the server.
    const SERVER: &str = "ARP_MONITOR_BENCH_SERVER";

    pub fn main() {
        if env::var_os(SERVER).is_some() {
            serve();
        } else {
            let mut server = Command::new(env::current_exe().unwrap())
                .env(SERVER, "1")
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut address = String::new();
            BufReader::new(server.stdout.take().unwrap())
                .read_line(&mut address)
                .unwrap();
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(client(address.trim()));
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    async fn client(address: &str) {
        let config = || Config::new(format!("http://{address}").parse().unwrap());
        // The cost of the runtime, the client and its first connection is not counted.
        let warm = ApiConnection::with(config()).unwrap();
        warm.ready_endpoints(&probe_model::NamespacedName {
            namespace: "shop".to_owned(),
            name: "none".to_owned(),
        })
        .await
        .unwrap();

        let meter = Meter::start();
        let (handle, running) = ClusterHandle::start(ApiConnection::with(config()).unwrap(), None);
        let mut cluster = handle.cluster();
        let all_known = |cluster: &std::sync::Arc<ClusterSnapshot>| {
            let freshness = &cluster.objects().freshness;
            Resource::ALL.iter().all(|resource| {
                freshness
                    .get(resource)
                    .is_some_and(|health| health.state == ResourceState::Current)
            })
        };
        cluster.wait_for(all_known).await.unwrap();
        meter.stop("10 000 services, 10 000 statuses and 20 pools, listed and watched");
        assert_eq!(cluster.borrow().services().len(), SERVICES);

        let objects = cluster.borrow().objects().clone();
        let meter = Meter::start();
        for _ in 0..10 {
            let cluster = ClusterSnapshot::from(objects.clone());
            assert_eq!(cluster.services().len(), SERVICES);
        }
        meter.stop("new snapshot, ten times");

        let meter = Meter::start();
        let nodes = handle.nodes(Duration::ZERO).await;
        meter.stop("5 000 nodes, listed");
        assert_eq!(nodes.len(), NODES);
        running.stop().await;
    }

    /// Measures the CPU time and memory of this process.
    struct Meter {
        time: Instant,
        ticks: u64,
        resident: u64,
    }

    impl Meter {
        fn start() -> Self {
            // Reset the peak.
            fs::write("/proc/self/clear_refs", "5").unwrap();
            Self {
                time: Instant::now(),
                ticks: ticks(),
                resident: status("VmRSS:"),
            }
        }

        fn stop(self, what: &str) {
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            println!(
                "{what}: {:.1} s, processor {:.2} s, memory +{:.1} MiB, at most +{:.1} MiB",
                self.time.elapsed().as_secs_f64(),
                (ticks() - self.ticks) as f64 / 100.0,
                mib(status("VmRSS:").saturating_sub(self.resident)),
                mib(status("VmHWM:").saturating_sub(self.resident)),
            );
        }
    }

    /// A line of `/proc/self/status`, in bytes.
    fn status(name: &str) -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        line.trim()
            .strip_suffix(" kB")
            .unwrap()
            .parse::<u64>()
            .unwrap()
            * 1024
    }

    /// The CPU time in hundredths of a second: fields 14 and 15 of `/proc/self/stat`.
    fn ticks() -> u64 {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let mut fields = fields
            .split(' ')
            .skip(11)
            .map(|field| field.parse::<u64>().unwrap());
        fields.next().unwrap() + fields.next().unwrap()
    }

    /// A minimal HTTP server: one response per connection.
    fn serve() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        println!("{}", listener.local_addr().unwrap());
        for connection in listener.incoming() {
            std::thread::spawn(|| respond(connection.unwrap()));
        }
    }

    fn respond(mut connection: TcpStream) {
        let mut head = BufReader::new(connection.try_clone().unwrap());
        let mut line = String::new();
        head.read_line(&mut line).unwrap();
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        while line.trim() != "" {
            line.clear();
            head.read_line(&mut line).unwrap();
        }
        let code = if path.contains("/leases") {
            "403 Forbidden"
        } else {
            "200 OK"
        };
        let start = format!(
            "HTTP/1.1 {code}\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n"
        );
        connection.write_all(start.as_bytes()).unwrap();
        if path.contains("watch=1") {
            // Until the client disconnects.
            let _ = head.read(&mut [0]);
            return;
        }
        let mut written = 0;
        let mut write = |text: &str| {
            written += text.len();
            // The client has disconnected.
            let _ = connection.write_all(text.as_bytes());
        };
        let (number, object): (_, fn(usize) -> Value) = match path.split('?').next() {
            Some("/api/v1/services") => (SERVICES, service),
            Some("/api/v1/nodes") => (NODES, node),
            Some(path) if path.ends_with("/servicel2statuses") => (STATUSES, status_of),
            Some(path) if path.ends_with("/ipaddresspools") => (POOLS, pool),
            _ => (0, pool),
        };
        write("{\"kind\":\"List\",\"metadata\":{\"resourceVersion\":\"7\"},\"items\":[");
        for item in 0..number {
            write(if item == 0 { "" } else { "," });
            write(&object(item).to_string());
        }
        write("]}");
        if number > 0 {
            eprintln!(
                "{path}: {:.1} MB",
                f64::from(u32::try_from(written).unwrap()) / 1e6
            );
        }
    }

    /// Managed fields of this size, as `kubectl` and controllers leave them.
    fn managed_fields(bytes: usize) -> Value {
        let fields: serde_json::Map<_, _> = (0..bytes / 32)
            .map(|number| (format!("f:field-of-an-object-{number:05}"), json!({})))
            .collect();
        json!([{"manager": "controller", "operation": "Update", "fieldsV1": fields}])
    }

    fn address(number: usize) -> String {
        format!(
            "10.{}.{}.{}",
            number >> 16,
            (number >> 8) & 255,
            number & 255
        )
    }

    fn service(number: usize) -> Value {
        json!({
            "metadata": {
                "namespace": format!("team-{}", number % 200),
                "name": format!("service-{number}"),
                "uid": format!("00000000-0000-4000-8000-{number:012}"),
                "resourceVersion": "7",
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {
                    "metallb.io/ip-allocated-from-pool": format!("pool-{}", number % POOLS),
                    "kubectl.kubernetes.io/last-applied-configuration": "x".repeat(600),
                },
                "managedFields": managed_fields(1_500),
            },
            "spec": {
                "type": "LoadBalancer",
                "clusterIP": address(number),
                "ports": [{"name": "https", "port": 443, "nodePort": 30_000, "targetPort": 8443}],
                "selector": {"app": format!("service-{number}")},
            },
            "status": {"loadBalancer": {"ingress": [{"ip": address(number), "ipMode": "VIP"}]}},
        })
    }

    fn status_of(number: usize) -> Value {
        json!({
            "metadata": {
                "namespace": "metallb-system",
                "name": format!("l2-{number:05}"),
                "labels": {"metallb.io/node": format!("node-{}", number % NODES)},
                "managedFields": managed_fields(400),
            },
            "status": {
                "node": format!("node-{}", number % NODES),
                "serviceName": format!("service-{number}"),
                "serviceNamespace": format!("team-{}", number % 200),
            },
        })
    }

    fn pool(number: usize) -> Value {
        json!({
            "apiVersion": "metallb.io/v1beta1",
            "kind": "IPAddressPool",
            "metadata": {"namespace": "metallb-system", "name": format!("pool-{number}")},
            "spec": {"addresses": [format!("10.{number}.0.0/16")]},
        })
    }

    fn node(number: usize) -> Value {
        let images: Vec<_> = (0..50)
            .map(|image| {
                json!({
                    "names": [format!("registry.example/image-{image}@sha256:{}", "5a".repeat(32))],
                    "sizeBytes": 123_456_789,
                })
            })
            .collect();
        json!({
            "metadata": {
                "name": format!("node-{number}"),
                "labels": {"kubernetes.io/hostname": format!("node-{number}")},
                "managedFields": managed_fields(6_000),
            },
            "status": {
                "addresses": [{"type": "InternalIP", "address": address(number)}],
                "images": images,
            },
        })
    }
}

fn main() {
    #[cfg(feature = "kubernetes")]
    measure::main();
}
