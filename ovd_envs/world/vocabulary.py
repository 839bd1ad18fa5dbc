"""What is not invented: values that a question may ask for. Long lists keep guessing hopeless.

No value is part of another one, and none is a word of the wordings.
"""

from __future__ import annotations


def _lines(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.replace("\n", ",").split(",") if part.strip())


PROFESSIONS = _lines("""
    accountant, archivist, astronomer, baker, barber, beekeeper, blacksmith, botanist, bricklayer
    butcher, carpenter, cartographer, chemist, clockmaker, cook, cooper, dentist, diver, dyer
    electrician, engraver, farrier, ferryman, fisher, florist, forester, gardener, geologist
    glassblower, goldsmith, judge, juggler, lawyer, librarian, locksmith, mason, midwife, miller
    miner, nurse, optician, painter, pharmacist, pilot, plumber, potter, roofer, saddler
    sculptor, shepherd, singer, surgeon, surveyor, tailor, tanner, translator, typesetter
    upholsterer, violinist, weaver
""")

HOBBIES = _lines("""
    archery, badminton, ballet, bird watching, bowling, calligraphy, canoeing, chess, cricket
    crochet, croquet, curling, cycling, darts, diary keeping, dominoes, embroidery, fencing
    golf, gymnastics, hiking, ice skating, jigsaw puzzles, jogging, juggling clubs, karate
    kite flying, knitting, lacrosse, magic tricks, marbles, mushroom picking, origami
    pony riding, rowing, rugby, sailing, skiing, snooker, squash, stamp collecting, star gazing
    surfing, table tennis, tap dancing, volleyball, water polo, whittling, wrestling, yoga
""")

SIGHTS = _lines("""
    aqueduct, arboretum, bandstand, belfry, botanical garden, cable car, canal lock, carousel
    cathedral, cider press, clock tower, covered market, dry dock, fish ladder, fortress
    granary, grotto, ice cellar, lighthouse, maze, mint, monastery, mosaic floor, observatory
    opera house, orangery, pagoda, planetarium, printing house, quarry, racecourse, rope walk
    sundial, swimming baths, tannery, toll house, town oak, viaduct, water wheel, windmill
""")

PRODUCTS = _lines("""
    anchors, bagpipes, barometers, batteries, bells, bicycles, binoculars, blankets, bricks
    buttons, candles, carpets, chocolate, coffins, compasses, elevators, envelopes, fishing nets
    furniture, gloves, hammocks, handbags, harps, hats, ink, ladders, lamps, lanterns
    lawn mowers, lipstick, matches, mirrors, mustard, needles, pencils, perfume, pianos, pumps
    rubber boots, sausages, scissors, shoelaces, soap, spectacles, suitcases, tents, thermometers
    toothbrushes, tractors, trumpets, umbrellas, varnish, vinegar, wallpaper, wheelbarrows, zips
""")

COLOURS = _lines("amber, black, blue, crimson, green, grey, orange, pink, purple, silver, white")
ANIMALS = _lines("""
    badger, bear, crane, dolphin, fox, goose, hare, heron, horse, lion, lizard, moth, otter, owl
    rooster, stag, swan, tortoise, whale, wolf
""")
LOGOS = tuple(f"{colour} {animal}" for animal in ANIMALS for colour in COLOURS)

GENRES = _lines("""
    adventure story, allegory, anthology, ballad, biography, comedy, cookery book, crime story
    detective story, elegy, epic, essay, fable, fairy tale, family saga, farce, ghost story
    historical novel, hymnal, legal thriller, love story, memoir, murder mystery, nursery rhyme
    parody, pastoral, philosophical dialogue, picture book, political satire, prose poem
    science fiction, sea story, sonnet cycle, spy story, travel guide, tragedy, war diary, western
""")

THEMES = _lines("""
    accordion music, apple picking, balloon flight, brass bands, bread baking, cheese making
    choral singing, comic books, dog sledding, dragon boats, drumming, fashion, fireworks
    folk dancing, horse racing, jazz, kayaking, log rolling, masks, oyster eating, pipe organs
    poetry, pottery, pumpkin carving, puppetry, robots, sand castles, short films, silent films
    sheep shearing, snow sculpture, soup cooking, stilt walking, storytelling, street theatre
    tango, tug of war, vintage cars, wine tasting, wood chopping
""")

PRIZES = _lines("""
    barrel of honey, bronze medal, cast iron stove, copper kettle, crystal vase, feather bed
    fur coat, garland of roses, gold watch, ham, leather saddle, marble bust, oak chest
    oil painting, pearl necklace, pewter mug, pocket telescope, porcelain doll, quilt
    rocking chair, ruby ring, sack of flour, silk scarf, spinning wheel, steel sword, tapestry
    velvet cape, walnut cabinet, wheel of cheese, wicker basket, wool carpet, young donkey
""")
