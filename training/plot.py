"""Plots loss and PSNR over the steps of a training run. In: rows of log.csv. Out: an SVG file."""

WIDTH, HEIGHT, MARGIN = 640, 220, 60
COLOURS = {"loss": "#888", "clean": "#1f77b4", "coded": "#d62728"}


def plot(rows, path):
    steps = [int(row["step"]) for row in rows]
    loss, *psnr = ([float(row[name]) for row in rows] for name in COLOURS)
    panels = [panel(0, "loss (L1)", steps, {"loss": loss}), panel(1, "PSNR-Y, dB", steps, dict(zip(list(COLOURS)[1:], psnr)))]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{2 * HEIGHT}" font-family="sans-serif" font-size="12">'
    path.write_text("\n".join([head, '<rect width="100%" height="100%" fill="#fff"/>', *panels, "</svg>\n"]))


def panel(place, title, steps, lines):
    """Draws panel number `place`, from the top. All its lines share one vertical scale."""
    values = [value for line in lines.values() for value in line if value == value]
    low, high = min(values), max(values)
    x = lambda step: MARGIN + (WIDTH - 2 * MARGIN) * step / steps[-1]
    y = lambda value: (place + 1) * HEIGHT - 30 - (HEIGHT - 60) * (value - low) / ((high - low) or 1)
    parts = [f'<text x="{MARGIN}" y="{place * HEIGHT + 18}">{title}</text>']
    for value in (low, high):
        parts.append(f'<text x="4" y="{y(value) + 4:.0f}">{value:.4g}</text>')
        parts.append(f'<path d="M{MARGIN} {y(value):.1f}H{WIDTH - MARGIN}" stroke="#ddd"/>')
    parts.append(f'<text x="{WIDTH - MARGIN}" y="{(place + 1) * HEIGHT - 10}" text-anchor="end">step {steps[-1]}</text>')
    for number, (name, line) in enumerate(lines.items()):
        points = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in zip(steps, line) if value == value)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[name]}"/>')
        parts.append(f'<text x="{WIDTH - MARGIN + 6}" y="{place * HEIGHT + 30 + 16 * number}" fill="{COLOURS[name]}">{name}</text>')
    return "\n".join(parts)
