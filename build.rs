//! Tells the sources which FFmpeg they are built against, by what ffmpeg-sys-next found in its headers.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for version in ["ffmpeg_6_1", "ffmpeg_7_0", "ffmpeg_7_1", "ffmpeg_8_0"] {
        println!("cargo:rustc-check-cfg=cfg({version})");
        let variable = format!("DEP_FFMPEG_{}", version.to_uppercase());
        if std::env::var(variable).is_ok_and(|found| found == "true") {
            println!("cargo:rustc-cfg={version}");
        }
    }
}
