//! `jetmoe devices`.

use serde_json::Value;

use crate::context::new_context;

#[test]
fn every_backend_and_every_place_is_listed() {
    let context = new_context();
    let table = context.run("jetmoe devices");
    let table = table.succeeded();
    for part in
        ["backends\n", "  ort ", "CPUExecutionProvider", "CUDAExecutionProvider", "  tract ", "  reference "]
    {
        assert!(table.contains(part), "{table}");
    }
    assert!(table.contains("\nlibonnxruntime, in the order of search\n"), "{table}");

    let json = context.run("jetmoe devices --format json");
    let report: Value = serde_json::from_str(json.succeeded()).unwrap();
    let backends = report["backends"].as_array().unwrap();
    let names: Vec<_> = backends.iter().map(|backend| backend["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["ort", "tract", "reference"]);
    assert!(backends.iter().all(|backend| backend["usable"] == true), "{report:#}");
    let cpu = &backends[0]["providers"][0];
    assert_eq!((&cpu["name"], &cpu["usable"]), (&"CPUExecutionProvider".into(), &true.into()));
    assert!(
        report["onnxruntime_libraries"].as_array().unwrap().iter().any(|library| library["usable"] == true)
    );
}
