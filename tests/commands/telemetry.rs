//! ONNX Runtime's telemetry. Every other test of a command checks it too, see [`jetmoe_testing::TestContext`].

use crate::context::context_with_artifact;

#[test]
fn no_command_that_loads_onnx_runtime_leaves_telemetry() {
    let context = context_with_artifact("jetmoe-mini");
    for line in [
        "jetmoe run --model artifact --backend ort --max-new-tokens 2 --prompt \"And God said\"",
        "jetmoe verify --model artifact --checkpoint jetmoe-mini --backend ort",
        "jetmoe devices",
    ] {
        context.run(line).succeeded();
        context.assert_no_telemetry();
    }
}
