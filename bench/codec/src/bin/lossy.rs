use codec::*;
fn now() -> f64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut t) };
    t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
}
fn main() {
    let s: f64 = std::env::args().nth(1).unwrap().parse().unwrap();
    for path in std::env::args().skip(2) {
        let raw = std::fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&raw[10..128]).to_string();
        let sp = text.split("'shape': (").nth(1).unwrap().split(')').next().unwrap();
        let shape: Vec<usize> = sp.split(',').filter_map(|x| x.trim().parse().ok()).collect();
        let data = &raw[128..];
        let h = shape[0] / 2;
        let w = shape[1] * 2;
        let sh = [h, shape[1]];
        let all = TensorRef::new(DType::Bf16, &shape, data).unwrap();
        let first = TensorRef::new(DType::Bf16, &sh, &data[..h * w]).unwrap();
        let second = TensorRef::new(DType::Bf16, &sh, &data[h * w..]).unwrap();
        let t = Target::similarity(s).unwrap();
        let a = now();
        let basis = Basis::learn(&[first]).unwrap();
        let lt = now() - a;
        let basis = Basis::from_bytes(basis.to_bytes()).unwrap();
        let mut shared = Shared::new();
        shared.add_basis(std::sync::Arc::new(basis.clone()));
        print!("{:24} learn {lt:.2}s k {} side {}", path.rsplit('/').next().unwrap(), basis.components(), basis.to_bytes().len());
        let level = Level::detect();
        for kind in std::env::var("KIND").unwrap_or("uniform,int8,klt".into()).split(',') {
            let x = if kind == "klt" { second } else { all };
            let mut out = vec![];
            let mut dec = vec![];
            let (mut e, mut d) = (vec![], vec![]);
            let mut hd = None;
            for _ in 0..std::env::var("N").map_or(5, |n| n.parse().unwrap()) {
                out.clear();
                let a = now();
                match kind {
                    "klt" => encode_klt(level, &basis, t, x, &mut out).unwrap(),
                    _ => encode_lossy(level, kind.parse().unwrap(), t, x, &mut out).unwrap(),
                };
                let b = now();
                hd = Some(decode_into_at(level, &out, &Limits::default(), &shared, &mut dec).unwrap());
                let f = now();
                e.push(b - a);
                d.push(f - b);
            }
            e.sort_by(f64::total_cmp);
            d.sort_by(f64::total_cmp);
            let g = |y: f64| x.bytes().len() as f64 / y / 1e9;
            let y = Tensor::new(DType::Bf16, x.shape().to_vec(), dec.clone()).unwrap();
            print!(" | {} {:.3} s {:.4} {:5.3} {:5.3}", hd.unwrap().codec, x.bytes().len() as f64 / out.len() as f64, similarity(x, y.view()).unwrap(), g(e[e.len() / 2]), g(d[d.len() / 2]));
        }
        let mut st = LowRank::new(32).unwrap();
        let mut out = vec![];
        let a = now();
        encode_low_rank(level, &mut st, all, &mut out).unwrap();
        let b = now();
        let y = decode(&out, &Limits::default()).unwrap();
        println!(" | lowrank32 {:.2} s {:.4} {:.3}", data.len() as f64 / out.len() as f64, similarity(all, y.view()).unwrap(), data.len() as f64 / (b - a) / 1e9);
    }
}
