//! The control plane of the lab: the properties that the daemon's tests rely on.

use anyhow::{Result, ensure};
use probe_tests::{Kubernetes, Lab, install_metallb, metallb, namespace, pool, service};
use serde_json::json;

/// Watches changes since a version, for at most a second.
fn watch_since(kubernetes: &Kubernetes, version: &str) -> Result<String> {
    let path = format!("/api/v1/services?watch=true&timeoutSeconds=1&resourceVersion={version}");
    Ok(kubernetes.api()?.get_text(&path)?.body)
}

#[test]
fn objects_survive_a_restart_and_an_old_resource_version_expires() -> Result<()> {
    let mut kubernetes = Lab::new()?.kubernetes()?;
    let api = kubernetes.api()?;
    install_metallb(&api, true)?;
    api.create(&pool("production", &["192.0.2.0/28"]))?;
    let advertised = json!({ "ipAddressPools": ["production"] });
    api.create(&metallb("L2Advertisement", "all", &advertised))?;
    api.create(&namespace("shop"))?;
    let frontend = service("shop", "frontend");
    let old = api.create(&frontend)?["metadata"]["resourceVersion"].clone();
    let old = old.as_str().unwrap();
    let path = "/status/loadBalancer/ingress/0/ip";
    api.assign(&frontend, &["192.0.2.1"])?;
    assert!(watch_since(&kubernetes, old)?.contains("192.0.2.1"));

    kubernetes.compact()?;
    kubernetes.stop()?;
    assert!(
        kubernetes.api()?.read(&frontend).is_err(),
        "the API server still replies"
    );
    kubernetes.start()?;
    let api = kubernetes.api()?;
    assert_eq!(
        api.read(&frontend)?.pointer(path),
        Some(&json!("192.0.2.1"))
    );
    let expired = watch_since(&kubernetes, old)?;
    ensure!(expired.contains("\"code\":410"), "{expired}");

    // The schema is enforced.
    let nonsense = pool("nonsense", &[]);
    let refused = api.patch(
        &pool("production", &[]),
        &json!({ "spec": { "addresses": 7 } }),
    );
    assert!(refused.is_err());
    api.create(&nonsense)?;
    api.delete(&nonsense)?;
    Ok(())
}

#[test]
fn a_program_on_a_host_uses_the_service_account_of_the_deployment() -> Result<()> {
    let lab = Lab::new()?;
    let [node, _other] = lab.pair("node", "other")?;
    let kubernetes = lab.kubernetes()?;
    let account = kubernetes.deployed_account()?;
    let access = kubernetes.deploy_to(&node, &account)?;
    let files = "/var/run/secrets/kubernetes.io/serviceaccount";
    let command = format!(
        "curl --silent --cacert {files}/ca.crt --header \"Authorization: Bearer $(cat {files}/token)\" \
         https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/api/v1/secrets && cat {files}/namespace"
    );
    let output = node.exec([access.words(), vec!["sh", "-c", &command]].concat())?;
    // The account authenticates and may not read Secrets.
    assert!(output.contains(&account.user), "{output}");
    assert!(output.contains("\"code\": 403"), "{output}");
    assert!(output.trim_end().ends_with("arp-monitor"), "{output}");
    let requests = kubernetes.audit()?;
    let requests: Vec<_> = requests
        .iter()
        .filter(|event| event.user == account.user)
        .collect();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert_eq!(
        (requests[0].verb.as_str(), requests[0].status),
        ("list", 403)
    );
    // The mounts are not visible outside of the mount namespace.
    assert!(!std::path::Path::new(files).exists());
    Ok(())
}
