//! Tells the sources which FFmpeg they are built against, by what ffmpeg-sys-next found in its headers.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(ffmpeg_6_1)");
    if std::env::var("DEP_FFMPEG_FFMPEG_6_1").is_ok_and(|found| found == "true") {
        println!("cargo:rustc-cfg=ffmpeg_6_1");
    }
}
