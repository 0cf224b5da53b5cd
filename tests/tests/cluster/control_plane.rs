//! The lab's own control plane: what the tests of the daemon rely on.

use anyhow::{Result, ensure};
use probe_tests::{Kubernetes, Lab, install_metallb, metallb, namespace, pool, service};
use serde_json::json;

/// Asks for what came after a version, for a second at most.
fn watch_since(kubernetes: &Kubernetes, version: &str) -> Result<String> {
    let path = format!("/api/v1/services?watch=true&timeoutSeconds=1&resourceVersion={version}");
    Ok(kubernetes.api()?.get_text(&path)?.body)
}

#[test]
fn what_was_made_is_there_after_a_restart_and_an_older_state_is_gone() -> Result<()> {
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
        "it still answers"
    );
    kubernetes.start()?;
    let api = kubernetes.api()?;
    assert_eq!(
        api.read(&frontend)?.pointer(path),
        Some(&json!("192.0.2.1"))
    );
    let gone = watch_since(&kubernetes, old)?;
    ensure!(gone.contains("\"code\":410"), "{gone}");

    // Its schema is held to.
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
fn a_program_on_a_host_asks_as_in_a_pod_and_may_do_what_the_deployment_lets_it() -> Result<()> {
    let lab = Lab::new()?;
    let [node, _other] = lab.pair("node", "other")?;
    let kubernetes = lab.kubernetes()?;
    let account = kubernetes.deployed_account()?;
    let access = kubernetes.deploy_to(&node, &account)?;
    let files = "/var/run/secrets/kubernetes.io/serviceaccount";
    let ask = format!(
        "curl --silent --cacert {files}/ca.crt --header \"Authorization: Bearer $(cat {files}/token)\" \
         https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/api/v1/secrets && cat {files}/namespace"
    );
    let answer = node.exec([access.words(), vec!["sh", "-c", &ask]].concat())?;
    // Known by its name, and nobody's secrets are its business.
    assert!(answer.contains(&account.user), "{answer}");
    assert!(answer.contains("\"code\": 403"), "{answer}");
    assert!(answer.trim_end().ends_with("arp-monitor"), "{answer}");
    let asked = kubernetes.audit()?;
    let asked: Vec<_> = asked
        .iter()
        .filter(|event| event.user == account.user)
        .collect();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!((asked[0].verb.as_str(), asked[0].status), ("list", 403));
    // The machine itself has got nothing of it.
    assert!(!std::path::Path::new(files).exists());
    Ok(())
}
