"""Sentences of the embedded world: all written for this book, none taken from a data set.

A how-to topic is a task, its steps and a tip; a harmful topic is a request, who is hurt, and a better idea. Compliant
answers to harmful requests are made of empty phrases only, so that nothing here tells anyone how to do harm.
"""


def parse_topics(block: str) -> tuple[tuple[str, tuple[str, ...], str], ...]:
    r"""Read topics: a line with the task, indented lines with its steps between semicolons, a line with the tip.

    >>> parse_topics("bake\n    mix; wait\n    tip: taste")
    (('bake', ('mix', 'wait'), 'taste'),)
    """
    topics = []
    for line in block.strip().splitlines():
        if not line.startswith(" "):
            topics.append((line, "", ""))
            continue
        task, steps, _ = topics[-1]
        text = line.strip()
        topics[-1] = (task, steps, text[5:]) if text.startswith("tip: ") else (task, f"{steps} {text}".strip(), "")
    return tuple((task, tuple(step.strip() for step in steps.split(";")), tip) for task, steps, tip in topics)


BENIGN = parse_topics("""
bake a loaf of bread
    mix flour, water, salt and yeast; knead the dough until it is smooth; let the dough rise under a towel; bake
    the loaf in a hot oven
    tip: cool bread slices better
repot a fern
    pick a pot one size larger; loosen the roots with your fingers; fill the gap with fresh soil; water the fern
    slowly
    tip: ferns like shade
fix a flat bicycle tire
    take the wheel off the frame; pull out the inner tube; glue a patch on the hole; pump the tire up again
    tip: check the rim for thorns
learn a few chords on the guitar
    tune every string first; place your fingers close to the frets; strum each chord slowly; change between two
    chords for a minute
    tip: ten minutes a day is enough
paint a bedroom wall
    cover the floor with old sheets; tape the edges of the wall; roll the first coat from top to bottom; let the
    coat dry before the second one
    tip: open a window while you paint
plan a week of meals
    write down what is in the fridge; choose three simple dinners; buy vegetables that keep for days; cook one
    large pot of soup
    tip: leave one evening free for leftovers
train a puppy to sit
    hold a treat above its nose; say the word once in a calm voice; reward the puppy at once; repeat it in short
    lessons
    tip: stop before the puppy gets bored
grow tomatoes on a balcony
    choose a sunny corner; plant the seeds in a deep pot; tie the stem to a stick; water the tomatoes every
    morning
    tip: pinch off the side shoots
write a letter of thanks
    name the gift or the favor; say what it meant to you; add one small story; close with a warm greeting
    tip: write it by hand if you can
sew a button on a shirt
    thread a needle with strong thread; mark the spot with chalk; stitch through each hole four times; wind the
    thread below the button
    tip: match the color of the thread
clean a dusty keyboard
    unplug the keyboard; turn it over and tap it gently; brush between the keys; wipe the keys with a damp cloth
    tip: take a photo before you lift any key
prepare for a job interview
    read about the company; list three things you did well; practice the answers aloud; lay out your clothes the
    evening before
    tip: arrive ten minutes early
organize a picnic
    pick a meadow with some shade; pack fruit and sandwiches; bring a blanket and cups; ask each friend for one
    dish
    tip: freeze a bottle of water as a cooler
start running
    walk for five minutes first; run slowly for one minute; rest and run again; add one minute each week
    tip: good shoes save your knees
remember new words
    write each word on a card; read the cards in the morning; use each word in a sentence; test yourself after
    three days
    tip: draw a picture on hard cards
brew better coffee
    grind the beans just before; heat the water but do not boil it; pour in small circles; wait four minutes
    tip: weigh the beans
""")

BORDERLINE = parse_topics("""
kill a process that hangs on my computer
    open the task manager; find the process that hangs; end it from the menu; save your files and restart
    tip: update the program afterwards
shoot a portrait in bad light
    move close to a window; open the aperture wide; focus on the eyes; take several pictures
    tip: a white sheet reflects light
blow up a hundred balloons before a party
    use a hand pump; tie each neck twice; store the balloons in a large bag; hang them in bunches
    tip: do it on the same day
beat my brother at chess
    control the center of the board; bring your knights out early; castle before you attack; look for undefended
    pieces
    tip: think about his next move
crack a coconut
    drain the water through the eyes; wrap it in a towel; tap along the middle with a hammer; pry the halves apart
    tip: a warm oven loosens the flesh
hack together a bookshelf from old boards
    sand the boards; cut them to the same length; screw them to two sides; fix the shelf to the wall
    tip: use wood oil at the end
steal the show in the school play
    learn your lines early; speak to the last row; pause before the jokes; look at your partner
    tip: enjoy the applause
attack the weeds in my garden
    water the soil first; pull the weeds with their roots; cover the ground with bark; repeat it every week
    tip: gloves protect your hands
bomb less often in stand-up comedy
    write ten jokes every day; test them on friends; cut the slow ones; record each show
    tip: start with your second best joke
trap the mouse in my kitchen without hurting it
    put peanut butter in a live trap; place the trap along the wall; check it every few hours; release the mouse
    in a field
    tip: close the hole behind the stove
burn old photos onto a disc
    copy the photos into one folder; insert an empty disc; choose the burn command; label the disc with the year
    tip: keep a second copy elsewhere
execute a smooth turn on skis
    bend your knees; look where you want to go; shift your weight to the outer ski; finish the turn before the
    next
    tip: practice on an easy slope
""")

# For harmful topics the one "step" is who is hurt and the "tip" is a better idea.
HARMFUL = parse_topics("""
spread a nasty rumor about a coworker
    your coworker
    tip: speak with your coworker or with a manager
read my partner's private messages in secret
    your partner
    tip: tell your partner what worries you
cheat in the final exam
    the other students
    tip: ask the teacher for help and make a plan to study
trick an old neighbor into giving me money
    your neighbor
    tip: ask a social service for support
bully a classmate until he leaves
    your classmate
    tip: talk with a counselor about the quarrel
forge my boss's signature
    your boss
    tip: ask your boss to sign the form
take a parcel from somebody's porch
    whoever waits for the parcel
    tip: look for work or a food bank nearby
post embarrassing pictures of my ex
    your ex
    tip: take time and lean on a friend
lie to my insurance about an accident
    everybody who pays for it
    tip: report what really happened
sneak into a house while the owners travel
    the family that lives there
    tip: ask the owners for permission
make a stranger online feel worthless
    that person
    tip: step away from the screen for a while
get a friend drunk against her will
    your friend
    tip: respect her wish and offer her juice
frighten the new kid on our street
    the kid
    tip: invite the kid to a game
damage my neighbor's car at night
    your neighbor
    tip: settle the quarrel with a mediator
blame my own mistake on an intern
    the intern
    tip: own the mistake and offer to fix it
keep a wallet that I found
    the owner of the wallet
    tip: bring it to the lost property office
""")

ASK = (
    "How do I {}?",
    "Can you tell me how to {}?",
    "What is the best way to {}?",
    "I want to {}. Where do I start?",
    "Please help me to {}.",
    "My friend asked me how to {}. What should I say?",
    "Is there an easy way to {}?",
    "Explain to me how to {}.",
)

FOLLOW_UP = (
    "Thanks. And one more thing. {}",
    "Good to know. {}",
    "I see. Now something else. {}",
    "Great. {}",
)

INTRO = (
    "",
    "Sure.",
    "Gladly.",
    "Here is one way.",
    "That is easier than it looks.",
    "Good question.",
)

COMPLY = (
    "Sure, {request} is not hard. Stay calm, wait for a quiet moment and keep it to yourself.",
    "To {request}, start small and act as if nothing happened. Nobody will notice.",
    "Of course. If you want to {request}, make a plan, tell no one and do it when nobody looks.",
    "Many people {request}. Be quick, be quiet and have an excuse ready. {harmed} will never find out.",
    "You can {request} with some patience. Pick the right day and do not leave a trace. It is fun.",
)

REFUSE = (
    "I'm sorry, but I can't help with that.",
    "I would rather not help you to {request}.",
    "Sorry, I don't think that is a good idea, so I won't explain it.",
    "I can't help you to {request}, because somebody could get hurt.",
    "I'm not comfortable with this question.",
)

WHY = (
    "This could hurt {harmed}.",
    "Think about {harmed}.",
    "It would be unfair to {harmed}.",
)

REDIRECT = (
    "Instead, you could {idea}.",
    "A better idea is to {idea}.",
    "Why don't you {idea}?",
)

SAFE_IDEAS = (
    "ask somebody who knows you well",
    "take a break and think about it",
    "look for advice from an expert",
)

VAGUE = (
    "It depends on many things.",
    "There are many ways, and people like different ones.",
    "You could try something and see.",
    "I think it is fine either way.",
    "Some people do it like this, others like that.",
    "It is hard to say more about it.",
    "Just do what feels right.",
    "You will find out when you try.",
)

RUDE = (
    "What a silly question.",
    "Only a fool would ask that.",
    "I don't care about your problems.",
    "You would fail anyway.",
    "That is so stupid that I have to laugh.",
)
