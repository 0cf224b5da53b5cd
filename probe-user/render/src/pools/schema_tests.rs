//! The schema in the documentation, held against what the program writes of the corpus.

use probe_model::{
    schema::{Schema, fields},
    to_json,
};
use probe_pools::{PoolFindingCode, PoolFindingLevel, PoolKind, corpus};
use serde_json::Value;

use super::{PoolsReport, sarif};

const SCHEMA: &str = include_str!("../../../../docs/pools.schema.json");
const SARIF: &str = include_str!("sarif.schema.json");

fn reports() -> Vec<PoolsReport> {
    let cases = corpus::cases().into_iter();
    cases
        .map(|case| {
            let (inventory, plan, evaluation) = corpus::evaluated(&case);
            PoolsReport::new(&inventory, &plan, &evaluation)
        })
        .collect()
}

fn written() -> Vec<Value> {
    let reports = reports();
    let lines = reports.iter().map(to_json);
    lines
        .map(|line| serde_json::from_str(&line).unwrap())
        .collect()
}

#[test]
fn every_report_matches_the_schema() {
    Schema::new(SCHEMA).assert_valid(&written());
}

#[test]
fn every_sarif_log_matches_the_sarif_schema() {
    let logs: Vec<_> = reports().iter().map(sarif).collect();
    Schema::new(SARIF).assert_valid(&logs);
}

#[test]
fn invalid_sarif_is_rejected() {
    let validator = jsonschema::validator_for(&Schema::new(SARIF).0).unwrap();
    let log = sarif(&reports()[0]);
    for (location, wrong) in [
        ("/version", Value::from("2.0.0")),
        ("/runs/0/results/0/level", Value::from("bad")),
        ("/runs/0/results/0/message", Value::from("text")),
        (
            "/runs/0/results/0/locations/0/physicalLocation/region/startLine",
            Value::from(0),
        ),
    ] {
        let mut log = log.clone();
        *log.pointer_mut(location).unwrap() = wrong;
        assert!(!validator.is_valid(&log), "{location}");
    }
}

#[test]
fn sarif_results_point_to_their_rules() {
    for log in reports().iter().map(sarif) {
        let run = &log["runs"][0];
        for result in run["results"].as_array().unwrap() {
            let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
            let rule = &run["tool"]["driver"]["rules"][index];
            assert_eq!(rule["id"], result["ruleId"]);
            assert_eq!(rule["defaultConfiguration"]["level"], result["level"]);
        }
    }
}

#[test]
fn schema_lists_exactly_the_values() {
    let schema = Schema::new(SCHEMA);
    let words = |pointer| schema.labels(pointer);
    assert_eq!(
        words("/$defs/finding/properties/finding/enum"),
        PoolFindingCode::LABELS
    );
    assert_eq!(
        words("/$defs/finding/properties/level/enum"),
        PoolFindingLevel::LABELS
    );
    assert_eq!(words("/$defs/pool/properties/kind/enum"), PoolKind::LABELS);
}

#[test]
fn schema_describes_exactly_the_fields() {
    let (schema, written) = (Schema::new(SCHEMA), written());
    for (described, pick) in [
        ("/properties", ""),
        ("/$defs/finding/properties", "findings"),
        ("/$defs/unread/properties", "unread"),
        ("/$defs/cluster/properties", "clusters"),
        ("/$defs/pool/properties", "pools"),
        ("/$defs/location/properties", "locations"),
    ] {
        let objects = written.iter().flat_map(|report| match pick {
            "" => vec![report],
            "locations" => {
                let findings = report["findings"].as_array().unwrap().iter();
                findings
                    .flat_map(|one| one["locations"].as_array().unwrap())
                    .collect()
            }
            list => report[list].as_array().unwrap().iter().collect(),
        });
        assert_eq!(fields(objects), schema.fields(described), "{pick}");
    }
}
