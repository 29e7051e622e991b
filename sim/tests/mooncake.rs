//! x
use sim::{run, Scenario};
const MOONCAKE: &str = include_str!("../scenarios/mooncake.toml");
#[test]
fn figure() {
    let read = |file: &str| -> Result<String, sim::ScenarioError> {Ok(std::fs::read_to_string(format!("scenarios/{file}")).unwrap())};
    for (blocks, per) in [("12000","2000"),("16000","2000"),("8000","2000"),("12000","1500")] {
    let s = Scenario::with_traces(&MOONCAKE.replace("12000", blocks).replace("2000.0", &format!("{per}.0")), read).unwrap();
    let r = run(&s, 1);
    println!("{blocks} {per} {:?} {} {:?} busy {:.2} {:.2} steps {} ttft {:?}", r.prompts, r.prompts.computed_tokens as f64 / r.prompts.least_tokens as f64, r.all.completed, r.replicas[0].busy, r.replicas[1].busy, r.replicas[0].steps, r.all.ttft_ms);
    }
}
