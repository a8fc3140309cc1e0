//! `codling demo`: the main job, start to finish, on real data: issue item 11.

use crate::node::{Dir, codling, text};

#[test]
fn the_main_job_on_the_data_that_ships_and_on_the_users_own() {
    let dir = Dir::new();
    let output = codling(&["demo", "--dir", dir.join("demo").to_str().unwrap()]);
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}\n{}", text(&output.stderr));
    let summary = std::fs::read_to_string(dir.join("demo/result/outputs/summary.csv")).unwrap();
    assert!(summary.contains("temp_max"), "{summary}");
    assert!(shown.contains("SHA-256") && shown.to_lowercase().contains("quota"), "{shown}");

    let own = dir.join("own.csv");
    std::fs::write(&own, "city,height\nA,10\nB,30\n").unwrap();
    let output = codling(&["demo", "--dir", dir.join("demo2").to_str().unwrap(), own.to_str().unwrap()]);
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    let summary = std::fs::read_to_string(dir.join("demo2/result/outputs/summary.csv")).unwrap();
    assert!(summary.contains("height") && summary.contains("20"), "mean of 10 and 30: {summary}");
}
