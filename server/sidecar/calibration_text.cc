#include "server/sidecar/calibration_text.h"

namespace quicksave::server {
namespace {

constexpr char kProse[] =
    R"text(The lighthouse at the end of the northern breakwater had not been lit for eleven years when Marta Oyelaran bought it
from the harbour board for the price of a used car. Nobody in town could say what she wanted with it. The stairs were
sound, the lantern room leaked, and the keeper's cottage had lost half its roof in the storm of the year before last. She
moved in on a Tuesday in March, with two suitcases, a sewing machine and a grey cat who refused to leave the basket until
the wind dropped.

By the end of the first week she had learned three things. The first was that the tide came in faster than it looked: a
person who stood on the flat rocks to watch a seal could find, on turning round, that the way back was under water. The
second was that the shopkeeper, Mr. Haldane, knew everything and would tell it to anyone who bought at least a loaf of
bread. "You'll be wanting paraffin," he said, before she had opened her mouth, "and rope, and probably advice." The third
was that the light, though dead, was not forgotten. Every evening, at the hour when it used to be lit, some old man or
other walked out along the wall, looked up, nodded once, and walked home again.

She asked Haldane about it. He took a long time wrapping the bread. "My father was on the Corrigan," he said at last.
"Nineteen fifty-three. They came in on that light with the engine gone and two feet of water in the hold. Nine men. So
you can call it habit, if you like." He gave her the change, counted twice, and would not say more.

Why do people keep what no longer serves them? Economists have an answer, which is that they misjudge costs; historians
have another, which is that the thing still serves, only not in the way it was built to. A canal that carries no freight
drains the fields. A market hall without a market is where the children play when it rains. In the nineteenth century,
engineers measured a machine by its efficiency: the work that came out, divided by the heat that went in. No such number
exists for a lighthouse. It burns oil every night of the year so that on one night, perhaps, a ship will not be lost, and
if it does its work well there is nothing to show for it at all.

The physics is simple enough. A lens of Fresnel's design bends light that would have gone up to the sky, or down to the
rocks, until most of it travels in one flat sheet towards the horizon. Because the Earth is round, a lamp forty metres
above the sea can be seen from about twenty-three kilometres away; a sailor on a high mast sees it somewhat earlier. The
characteristic (so many flashes, then so many seconds of darkness) tells him which light it is. Two flashes every ten
seconds: the breakwater. One long flash every six: the island. None at all: look at the chart again, and slow down.

In May the glass arrived. It came on the back of a lorry from a scrap dealer two hundred miles to the south, in six wooden
crates packed with straw, and it had cost her more than the tower. The driver, a young man with a bandaged thumb, helped
her carry the crates as far as the door. "What is it?" he asked. She lifted out a prism as long as her forearm and held it
against the sun. A band of colour ran across the wall of the cottage, over the cat, and up into the broken roof.

"It's a way of wasting nothing," said Marta.

They worked until dark. On the next day four of the old men came without having been asked, bringing tools that had
belonged to their fathers, and on the day after that there were nine. Haldane closed the shop, which had not happened since
the funeral of his wife, and brought the paraffin himself. It was not needed, of course; the new lamp was electric, about
as large as a walnut, and drew less current than a kettle. But it seemed wrong to arrive with empty hands, he explained,
and somebody might want it for the stove. On the last evening of the month, at nine minutes past ten, she pressed the
switch. Out on the water, somebody sounded a horn.)text";

constexpr char kCode[] = R"text(#include <algorithm>
#include <cstdint>
#include <vector>

// Finds the first element that is not less than `value`; values.size() when there is none. O(log n).
template <typename T>
size_t LowerBound(const std::vector<T>& values, const T& value) {
  size_t low = 0;
  size_t high = values.size();
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (values[middle] < value) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

def parse_line(line: str, separator: str = ",") -> list[str]:
    """Splits one line of a table; quotes protect separators, and two quotes stand for one."""
    fields, current, quoted = [], [], False
    i = 0
    while i < len(line):
        char = line[i]
        if quoted and char == '"' and line[i + 1 : i + 2] == '"':
            current.append('"')
            i += 1
        elif char == '"':
            quoted = not quoted
        elif char == separator and not quoted:
            fields.append("".join(current))
            current = []
        else:
            current.append(char)
        i += 1
    if quoted:
        raise ValueError(f"unterminated quote in {line!r}")
    return fields + ["".join(current)]

class RateLimiter:
    def __init__(self, rate: float, burst: int) -> None:
        self.rate = rate
        self.tokens = float(burst)
        self.burst = burst
        self.last = time.monotonic()

    def allow(self, cost: float = 1.0) -> bool:
        now = time.monotonic()
        self.tokens = min(self.burst, self.tokens + (now - self.last) * self.rate)
        self.last = now
        if self.tokens < cost:
            return False
        self.tokens -= cost
        return True

use std::collections::HashMap;

/// Counts the words of a text, without regard to case.
pub fn count_words(text: &str) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()) {
        *counts.entry(word.to_lowercase()).or_insert(0) += 1;
    }
    counts
}

async function fetchAll(urls, limit = 4) {
  const results = new Array(urls.length);
  let next = 0;
  const worker = async () => {
    while (next < urls.length) {
      const index = next++;
      try {
        const response = await fetch(urls[index], { headers: { Accept: "application/json" } });
        results[index] = response.ok ? await response.json() : { error: response.status };
      } catch (error) {
        results[index] = { error: String(error) };
      }
    }
  };
  await Promise.all(Array.from({ length: limit }, worker));
  return results;
}

SELECT c.name, COUNT(o.id) AS orders, ROUND(SUM(o.total), 2) AS revenue
FROM customers AS c
LEFT JOIN orders AS o ON o.customer_id = c.id AND o.placed_at >= DATE '2023-01-01'
WHERE c.country IN ('DE', 'FR', 'PT')
GROUP BY c.name
HAVING COUNT(o.id) > 3
ORDER BY revenue DESC
LIMIT 20;

#!/usr/bin/env bash
set -euo pipefail
for file in "$@"; do
  [ -f "$file" ] || { echo "skipping $file" >&2; continue; }
  sha256sum "$file" | awk '{ print $1 }' >"$file.sha256"
done

{"service": "billing", "replicas": 3, "ports": [8080, 9090], "limits": {"cpu": "500m", "memory": "256Mi"},
 "env": [{"name": "LOG_LEVEL", "value": "info"}, {"name": "DB_HOST", "value": "10.0.4.17"}], "debug": false}

func (q *Queue[T]) Pop(ctx context.Context) (T, error) {
	var zero T
	for {
		q.mu.Lock()
		if len(q.items) > 0 {
			item := q.items[0]
			q.items = q.items[1:]
			q.mu.Unlock()
			return item, nil
		}
		q.mu.Unlock()
		select {
		case <-ctx.Done():
			return zero, ctx.Err()
		case <-q.ready:
		}
	}
})text";

constexpr char kLanguagesAndFigures[] =
    R"text(Der Zug nach Freiburg hatte an diesem Abend vierzig Minuten Verspätung, und niemand wusste, warum. Auf dem Bahnsteig
standen Leute mit Koffern, Kindern und Regenschirmen. „Das ist doch jedes Mal so“, sagte eine Frau, lachte aber dabei.

La bibliothèque ouvre à neuf heures, sauf le lundi. Nous avons cherché longtemps ce vieux livre de cuisine : il était
rangé derrière les atlas, couvert de poussière, et il y manquait la dernière page. Qu'est-ce qu'on mange ce soir ?

El río baja crecido después de las lluvias de marzo, y los pescadores esperan en la orilla. ¿Cuánto falta para que se
calme el agua? Nadie lo sabe; quizá dos días, quizá una semana.

Il nonno teneva in tasca un orologio che non funzionava più. «Due volte al giorno ha ragione», diceva. Na praça, as
crianças jogavam à bola até ao anoitecer, e ninguém as chamava para casa antes das oito.

Зимой в деревне рано темнеет, и дети возвращаются из школы с фонариками. Бабушка ставит чайник и спрашивает, что было
сегодня на уроке. 春天来了，河边的柳树都绿了，孩子们在公园里放风筝。今日は朝から雨が降っているので、駅まで歩いて行きました。
في الصباح الباكر يذهب الصيادون إلى البحر. सुबह बाज़ार में बहुत भीड़ थी। 오늘은 날씨가 참 좋네요.

| Country  | Capital  | Population (m) | Area (km²) | Currency |
|----------|----------|---------------:|-----------:|----------|
| Portugal | Lisbon   |           10.4 |     92,230 | euro     |
| Norway   | Oslo     |            5.5 |    385,207 | krone    |
| Kenya    | Nairobi  |           55.1 |    580,367 | shilling |
| Vietnam  | Hanoi    |           98.9 |    331,690 | dong     |

id,date,amount,status
1001,2024-02-29,149.90,paid
1002,2024-03-01,18.25,open
1003,2024-03-01,-7.50,refunded

Theorem. There are infinitely many prime numbers. Proof. Suppose p_1, p_2, ..., p_n were all of them, and let
N = p_1 p_2 ... p_n + 1. Any prime factor q of N differs from every p_i, because dividing N by p_i leaves the remainder 1.
So q is a prime that is not on the list, a contradiction. QED.

The derivative of f(x) = x^3 - 4x + 1 is f'(x) = 3x^2 - 4, so the extrema are at x = ±2/√3 ≈ ±1.1547. By the quadratic
formula, ax^2 + bx + c = 0 has the roots $x = \frac{-b \pm \sqrt{b^2 - 4ac}}{2a}$. If P(A) = 0.3, P(B) = 0.5 and the two are
independent, then P(A or B) = 0.3 + 0.5 - 0.15 = 0.65. 17 × 24 = 408; 1,000 / 8 = 125; 2^16 = 65,536.

Ingredients: 250 g flour, 3 eggs, 1/2 l milk, a pinch of salt, 30 g butter. Whisk, rest for 20 min, fry at medium heat.
Tel. +49 761 5550-142 · Mon–Fri 9:00–17:30 · order no. QX-77213/B · total: €84.60 (incl. 19 % VAT) 🙂)text";

std::vector<CalibrationTurn> Dialogue() {
  return {
      {"system", R"text(You are a helpful assistant. Answer clearly, and say so when you are not sure.)text"},
      {"user",
       R"text(I'm planning a small vegetable garden on a balcony that gets about five hours of sun. What should I grow?)text"},
      {"assistant",
       R"text(Five hours of sun is enough for more than most people think. Here is what I would try:

1. **Leafy greens** such as lettuce, spinach and chard. They even prefer some shade in summer.
2. **Herbs**: parsley, chives, mint and coriander. Basil wants the brightest corner.
3. **Radishes**, which are ready in about four weeks.
4. **Bush beans**, in a pot at least 25 cm deep.

Tomatoes and peppers are possible, but they will give less fruit than in full sun; choose a cherry variety if you want to try one. Use pots with holes, a mix with compost, and water in the morning. Do you know which direction the balcony faces?)text"},
      {"user", R"text(It faces east. And how much water is too much?)text"},
      {"assistant",
       R"text(East is good: morning light is gentle, and the plants rest from the heat in the afternoon.

As for water, push a finger into the soil up to the second joint. If it feels dry there, water until some runs out below; if it feels damp, wait a day. Signs of too much water are yellow lower leaves, a sour smell and small flies above the soil. Too little shows as drooping that recovers in the evening. In July a large pot may need two litres a day, in April perhaps half a litre.)text"},
      {"user",
       R"text(Great. Different question: a train leaves at 14:35 and arrives at 17:10. It covers 248 km. What is its average speed?)text"},
      {"assistant",
       R"text(Let's work it out step by step.

- From 14:35 to 17:10 is 2 hours and 35 minutes, which is 2 + 35/60 = 2.5833 hours.
- Average speed = distance / time = 248 km / 2.5833 h = 96.0 km/h.

So the train averages **about 96 km/h**.)text"},
      {"user", R"text(Can you write that as a Python function? Times as strings like "14:35".)text"},
      {"assistant",
       R"text(Sure:

```python
def average_speed(departure: str, arrival: str, kilometres: float) -> float:
    """Average speed in km/h; an arrival before the departure means the next day."""
    def minutes(time: str) -> int:
        hours, mins = time.split(":")
        return int(hours) * 60 + int(mins)

    duration = (minutes(arrival) - minutes(departure)) % (24 * 60)
    if duration == 0:
        raise ValueError("departure and arrival are the same")
    return kilometres / (duration / 60)

print(round(average_speed("14:35", "17:10", 248), 1))  # 96.0
```

The remainder operator takes care of trains that run past midnight.)text"},
      {"user",
       R"text(Thanks! Last one. My sister is upset because I forgot her birthday. What should I write to her?)text"},
      {"assistant",
       R"text(I'm sorry, that is an uncomfortable feeling. A short and honest message usually works better than a long excuse. For example:

"Dear Anna, I forgot your birthday, and I have no good reason. I know it hurt you, and I am sorry. You matter to me more than my calendar shows. May I take you out for dinner on Saturday, anywhere you like? I would love to hear how your year began."

If you can, call her as well: a voice says what a text cannot. And perhaps put next year's date into your phone while you are at it. Would you like it to sound lighter, or more formal?)text"},
      {"user", R"text(Lighter please, we joke a lot.)text"},
      {"assistant",
       R"text(Then how about this:

"Happy birthday, Anna! I am celebrating it in the time zone of the world's worst brothers, where it is still yesterday, or last week, depending on whom you ask. To make up for it I offer: one dinner, one cake of at least ordinary size, and the right to tease me about this until 2040. Deal?"

It admits the mistake, makes the joke at your own expense, and still offers something real.)text"},
  };
}

}  // namespace

absl::Span<const CalibrationText> CalibrationTexts() {
  static const auto* const kTexts =
      new std::vector<CalibrationText>{{.name = "prose", .text = kProse},
                                       {.name = "code", .text = kCode},
                                       {.name = "dialogue", .text = "", .turns = Dialogue()},
                                       {.name = "languages", .text = kLanguagesAndFigures}};
  return *kTexts;
}

}  // namespace quicksave::server
